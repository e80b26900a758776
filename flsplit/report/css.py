"""The page's style sheet: light and dark, for desks, telephones and paper."""

_DARK = """
  color-scheme: dark; --ink: #e4e7ec; --soft: #a3acb8; --line: #343a43; --accent: #4ba3e3; --back: #101114;
  --paper: #1a1a1a; --shade: #23262b; --hover: #22282f;
  --completed: #17382c; --on-completed: #8fdcbc; --budget: #17324a; --on-budget: #9fd0f5; --failed: #4a2415;
  --on-failed: #ffb48f; --unfinished: #443510; --on-unfinished: #f5d27a;
  --line-0: #4ba3e3; --line-1: #f5813f; --line-2: #35c39b; --line-3: #e7a3c8; --line-4: #f2b93b; --line-5: #a5dcff;
  --line-6: #f0f0f0; --chart-axis: #7c8592; --chart-text: #c8ced6; --chart-grid: #2e333b; --chart-mean: #a3acb8;
  --chart-rest: #454b55;
"""

CSS = (
    """
:root { color-scheme: light; --ink: #1f2733; --soft: #5b6573; --line: #dfe3e9; --accent: #0072B2; --back: #f4f6f8;
  --paper: #fff; --shade: #f3f5f8; --hover: #f4f8fb;
  --completed: #d9f0e6; --on-completed: #00543c; --budget: #dcedf8; --on-budget: #004a75; --failed: #fbe3d6;
  --on-failed: #8a3200; --unfinished: #fdf0cf; --on-unfinished: #6b4c00; }
@media screen and (prefers-color-scheme: dark) {
:root {"""
    + _DARK
    + """}
/* The picture of a partition turns round as a whole: few samples dark, many bright. */
figure.heat { --line-0: initial; --line-1: initial; --line-2: initial; --line-3: initial; --line-4: initial;
  --line-5: initial; --line-6: initial; --chart-axis: initial; --chart-text: initial; --chart-grid: initial; }
figure.heat svg { filter: invert(.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--back); overflow-wrap: break-word;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 32px 56px; background: var(--paper); min-height: 100vh; }
header { border-bottom: 3px solid var(--accent); padding-bottom: 10px; }
.brand { color: var(--accent); font-weight: 700; letter-spacing: .04em; font-size: 13px; }
h1 { font-size: 26px; line-height: 1.25; margin: 2px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 34px 0 10px; }
h3 { font-size: 15px; margin: 22px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0 10px; }
.note { color: var(--soft); font-size: 13px; max-width: 100ch; }
/* What is wider than its place scrolls in it, under shadows that say on which side there is more. */
.box { container-type: inline-size; margin: 0 0 14px; }
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 30%, transparent) left / 40px 100% no-repeat local,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to right, rgb(0 0 0 / .22), transparent) left / 12px 100% no-repeat scroll,
  linear-gradient(to left, rgb(0 0 0 / .22), transparent) right / 12px 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
table.results, table.settings, table.seeds { width: 100%; }
.seeds tbody th { width: 40%; }
thead th { text-align: left; vertical-align: bottom; color: var(--soft); font-weight: 600; line-height: 1.25;
  border-bottom: 2px solid var(--line); }
th, td { padding: 7px 8px; }
tbody th { text-align: left; font-weight: 600; min-width: 250px; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody tr:hover > * { background: var(--hover); }
.results td, .seeds td { white-space: nowrap; }
.results td:nth-child(n+3), .results thead th:nth-child(n+3), .seeds td, .seeds thead th:nth-child(n+2) {
  text-align: right; }
.results td:last-child, .results thead th:last-child { text-align: left; }
.settings td { overflow-wrap: break-word; }
.failures tbody th { min-width: 0; }
.failures td { text-align: left; }
.skew tbody th { min-width: 0; }
.skew td:nth-child(-n+5), .skew thead th:nth-child(n+2):nth-child(-n+5) { text-align: right; }
.skew td:nth-child(n+6), .skew thead th:nth-child(n+6) { padding-left: 20px; }
.run { display: inline-block; vertical-align: top; max-width: calc(100% - 46px); overflow-wrap: anywhere; }
.folder { display: block; color: var(--soft); font-weight: 400; font-size: 12px; }
.swatch { margin: 3px 8px 0 0; vertical-align: top; flex: none; }
.status { display: inline-block; padding: 0 8px; border-radius: 9px; font-size: 12px; background: var(--line); }
.status.completed { background: var(--completed); color: var(--on-completed); }
.status.budget { background: var(--budget); color: var(--on-budget); }
.status.failed { background: var(--failed); color: var(--on-failed); }
.status.unfinished { background: var(--unfinished); color: var(--on-unfinished); }
@container (max-width: 900px) {
  .cards, .cards tbody { display: block; width: 100%; }
  .cards thead { display: none; }
  .cards tbody tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(98px, 1fr)); gap: 8px 12px;
    border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px 12px; margin: 0 0 10px; }
  .cards tbody tr:hover > * { background: none; }
  .cards tbody tr > * { padding: 0; border: 0; text-align: left !important; white-space: normal; min-width: 0;
    overflow-wrap: anywhere; }
  .cards tbody th { grid-column: 1 / -1; font-size: 14px; }
  .cards td::before { content: attr(data-head); display: block; color: var(--soft); font-size: 11.5px;
    line-height: 1.3; }
  .cards td:empty { display: none; }
  .skew.cards tbody tr { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .skew.cards tbody td:nth-child(n+6) { grid-column: span 2; padding: 0; }
}
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 0 0 8px;
  font-size: 13.5px; }
.legend li { display: flex; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px 26px; }
figure { margin: 0; min-width: 0; container-type: inline-size; position: relative; }
figure.whole { grid-column: 1 / -1; }
figure.natural { margin: 8px 0 22px; }
figcaption { color: var(--soft); font-size: 13.5px; margin-bottom: 4px; padding-right: 92px; }
figure svg { display: block; max-width: 100%; height: auto; }
figure.half svg, figure.whole svg, .narrow svg { width: 100%; }
.narrow { display: none; max-width: 520px; }
@container (max-width: 480px) { .half .wide { display: none; } .half .narrow { display: block; } }
@container (max-width: 620px) {
  .whole .wide, .natural .wide { display: none; }
  .whole .narrow, .natural .narrow { display: block; }
}
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif !important; }
.take { position: absolute; top: 0; right: 0; margin: 0; font-size: 11.5px; line-height: 20px; }
a { color: var(--accent); }
.take a { display: inline-block; padding: 0 7px; border: 1px solid var(--line); border-radius: 5px;
  color: var(--soft); text-decoration: none; }
.take a:hover, .take a:focus-visible { border-color: var(--accent); color: var(--accent); }
code { font-size: .95em; }
pre { margin: 6px 0; padding: 9px 12px; border-radius: 6px; background: var(--shade); font-size: 12.5px;
  line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; font-size: 13.5px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
dd a { margin-right: 12px; }
dl.flow { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 8px 0 12px; }
dl.flow div { display: flex; gap: 8px; }
@media (max-width: 760px) {
  main { padding: 18px 16px 40px; }
  h1 { font-size: 22px; }
  .plots { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 480px) { dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl:not(.flow) dd { margin-bottom: 8px; } }
@page { size: A4; margin: 14mm; }
@media print {
  body { background: #fff; font-size: 10.5pt; }
  main { max-width: none; padding: 0; min-height: 0; }
  figure, tr, pre, .legend, li { break-inside: avoid; }
  h2, h3, .legend, figcaption { break-after: avoid; }
  .take { display: none; }
  .plots { grid-template-columns: repeat(2, minmax(0, 1fr)); break-before: avoid; }
  figure.whole { grid-column: auto; }
  figure { container-type: normal; }  /* a container is broken between its caption and its chart */
  .half .wide, .whole .wide { display: none; }
  .half .narrow, .whole .narrow { display: block; }
  h2 { break-inside: avoid; }
  h2::after { content: ""; display: block; height: 90mm; margin-bottom: -90mm; }  /* room for what it is above */
  figcaption { padding: 0; }
  .scroll { background: none; overflow: visible; }
  .status, pre, svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
)
