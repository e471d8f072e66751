"""Graph constructions side by side on one's own images: measures, a probe, and a report."""

from graphseg.compare.constructions import choose, default_constructions
from graphseg.compare.measures import measure_graph, message_edges
from graphseg.compare.probe_run import ProbeOptions
from graphseg.compare.probing import ProbeResult, probe, probe_splits
from graphseg.compare.report import write_report
from graphseg.compare.run import Comparison, compare
from graphseg.compare.statistics import compare_all, holm, paired_comparison, summarize
from graphseg.compare.table import format_table, write_csv, write_json

__all__ = [
    "Comparison",
    "ProbeOptions",
    "ProbeResult",
    "choose",
    "compare",
    "compare_all",
    "default_constructions",
    "format_table",
    "holm",
    "measure_graph",
    "message_edges",
    "paired_comparison",
    "probe",
    "probe_splits",
    "summarize",
    "write_csv",
    "write_json",
    "write_report",
]
