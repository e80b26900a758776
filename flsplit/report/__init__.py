"""What a run shows: the live progress and closing table (`console`), and the HTML page (`page`, `cli`).

    from flsplit.report.console import Progress, closing_table, human_bits
    from flsplit.report.page import write_report

Nothing is imported here, so that a run, which needs only `console`, does not wait for matplotlib.
"""
