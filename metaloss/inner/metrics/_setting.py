"""A metric as a setting: its name, or a table with its kind and settings."""

from typing import Annotated, Any

from pydantic import BeforeValidator

from metaloss.core import registry
from metaloss.errors import SettingsError


def metric_table(value: Any) -> dict[str, Any] | None:
    """The table of a metric with all its settings; None for accuracy.

    Raises:
        ValueError: it is neither a name nor a table, or there is no such metric.
    """
    if value is None:
        return None
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, dict):
        raise ValueError(f"expected the name of a metric, or a table with its kind, got {value!r}")
    try:
        metric = registry.build("metrics", table, "metric")
    except SettingsError as error:
        raise ValueError(str(error).removeprefix("metric: ")) from None
    # All settings: a matrix that a file held is in them, and the file is needed no more.
    full = {"kind": table["kind"], **registry.table(metric)}
    return None if full == {"kind": "accuracy"} else full


MetricTable = Annotated[dict[str, Any] | None, BeforeValidator(metric_table)]
