"""The page's style sheet."""

CSS = """
:root { color-scheme: light; --ink: #1f2733; --soft: #5b6573; --line: #dfe3e9; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #f4f6f8;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 32px 56px; background: #fff; min-height: 100vh; }
header { border-bottom: 3px solid var(--accent); padding-bottom: 10px; }
.brand { color: var(--accent); font-weight: 700; letter-spacing: .04em; font-size: 13px; }
h1 { font-size: 26px; line-height: 1.25; margin: 2px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 34px 0 10px; }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 6px 0 10px; }
.note { color: var(--soft); font-size: 13px; max-width: 100ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
table.results, table.settings { width: 100%; }
thead th { text-align: left; vertical-align: bottom; color: var(--soft); font-weight: 600; line-height: 1.25;
  border-bottom: 2px solid var(--line); }
th, td { padding: 7px 8px; }
tbody th { text-align: left; font-weight: 600; min-width: 230px; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody tr:hover > * { background: #f4f8fb; }
.results td { white-space: nowrap; }
.results td:nth-child(n+3), .results thead th:nth-child(n+3) { text-align: right; }
.results td:last-child, .results thead th:last-child { text-align: left; }
.settings td { overflow-wrap: break-word; }
.failures tbody th { min-width: 0; }
.failures td { text-align: left; }
.skew { margin: 0 0 22px; }
.skew tbody th { min-width: 0; }
.skew td:nth-child(-n+5), .skew thead th:nth-child(n+2):nth-child(-n+5) { text-align: right; }
.skew td:nth-child(n+6), .skew thead th:nth-child(n+6) { padding-left: 20px; }
.run { display: inline-block; vertical-align: top; max-width: calc(100% - 46px); overflow-wrap: anywhere; }
.folder { display: block; color: var(--soft); font-weight: 400; font-size: 12px; }
.swatch { margin: 3px 8px 0 0; vertical-align: top; }
.status { display: inline-block; padding: 0 8px; border-radius: 9px; font-size: 12px; background: #e9ecf0; }
.status.completed { background: #d9f0e6; color: #00543c; }
.status.budget { background: #dcedf8; color: #004a75; }
.status.failed { background: #fbe3d6; color: #8a3200; }
.status.unfinished { background: #fdf0cf; color: #6b4c00; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 0 0 8px;
  font-size: 13.5px; }
.legend li { overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px 26px; }
figure { margin: 0; min-width: 0; }
figure.whole { grid-column: 1 / -1; }
figure.natural { margin: 8px 0 22px; }
figcaption { color: var(--soft); font-size: 13.5px; margin-bottom: 4px; }
figure svg { display: block; max-width: 100%; height: auto; }
figure.half svg, figure.whole svg { width: 100%; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif !important; }
code { font-size: .95em; }
@media (max-width: 760px) {
  main { padding: 18px 16px 40px; }
  .plots { grid-template-columns: minmax(0, 1fr); }
  figure { overflow-x: auto; }
  figure.whole svg, figure.natural svg { width: auto; max-width: none; }
}
@media print {
  body { background: #fff; }
  main { max-width: none; padding: 0; }
  figure, tr { break-inside: avoid; }
}
"""
