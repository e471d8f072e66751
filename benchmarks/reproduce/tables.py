"""All tables in the small: protocols of the data sets, the rows that are run, and the tables."""

from __future__ import annotations

from benchmarks.reproduce.camvid import CAMVID, CAMVID_SETUPS, CAMVID_TABLES
from benchmarks.reproduce.merging import INSTANCE_SETUPS, NUCLEI, PEDESTRIANS, instance_tables
from benchmarks.reproduce.unlabelled import MSRC21, SENTINEL2, SGSEG_SETUPS, sgseg_tables

PROTOCOLS = {
    "camvid": CAMVID,
    "sentinel2_rgbnir": SENTINEL2,
    "msrc21": MSRC21,
    "dsb2018": NUCLEI,
    "penn_fudan": PEDESTRIANS,
}
SETUPS = {
    "camvid": CAMVID_SETUPS,
    "sentinel2_rgbnir": SGSEG_SETUPS,
    "msrc21": SGSEG_SETUPS,
    "dsb2018": INSTANCE_SETUPS,
    "penn_fudan": INSTANCE_SETUPS,
}
TABLES = (
    *CAMVID_TABLES,
    *sgseg_tables("sentinel2_rgbnir"),
    *sgseg_tables("msrc21"),
    *instance_tables("dsb2018"),
    *instance_tables("penn_fudan"),
)
