#!/usr/bin/env python3
"""Writes dashboards/*.json from panels.py.

  deploy/grafana/generate.py [--out FOLDER]

Needs grafana-foundation-sdk (tests/requirements.txt). A test compares what it writes with what
is committed.
"""

import argparse
import json
import pathlib

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

import panels

HERE = pathlib.Path(__file__).resolve().parent
WIDTH = 24  # columns of Grafana's grid
SIZES = {"stat": (WIDTH // 4, 4), "names": (WIDTH // 2, 4)}
DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Beside a stack and not on top of it.
LINE = [model.DynamicConfigValue(id_val="custom.stacking", value={"mode": "none", "group": "A"}),
        model.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
        model.DynamicConfigValue(id_val="custom.lineWidth", value=2)]


def variable(name, label, query):
    return (dashboard.QueryVariable(name).label(label).datasource(DATASOURCE).query(query)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True).include_all(True).all_value(".*")
            .current(model.VariableOption(text="All", value="$__all")))


def no_traffic():
    """A ratio of nothing is NaN: say so."""
    return model.SpecialValueMap(options=model.DashboardSpecialValueMapOptions(
        match=model.SpecialValueMatch.NULL_AND_NAN,
        result=model.ValueMappingResult(text="No traffic", color="text", index=0)))


def target(query, index):
    return (prometheus.Dataquery().expr(query.promql).legend_format(query.legend)
            .ref_id(chr(ord("A") + index)))


def build_panel(panel, position):
    if panel.kind in ("stat", "names"):
        builder = stat.Panel().reduce_options(
            common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
        if panel.kind == "names":
            builder = builder.text_mode(common.BigValueTextMode.NAME)
    else:
        builder = timeseries.Panel().legend(
            common_builder.VizLegendOptions().show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM).calcs([]))
    builder = (builder.title(panel.title).description(panel.what).unit(panel.unit)
               .datasource(DATASOURCE).grid_pos(position).no_value("No traffic")
               .mappings([no_traffic()]))
    if panel.minimum is not None:
        builder = builder.min(panel.minimum)
    if panel.maximum is not None:
        builder = builder.max(panel.maximum)
    if panel.kind == "stack":
        builder = (builder.fill_opacity(40).line_width(1).stacking(
            common_builder.StackingConfig().mode(common.StackingMode.NORMAL).group("A")))
    for index, query in enumerate(panel.queries):
        builder = builder.with_target(target(query, index))
        if query.is_line:
            builder = builder.with_override(model.MatcherConfig(id_val="byName", options=query.legend),
                                            LINE)
    return builder


def build_dashboard(board):
    builder = (dashboard.Dashboard(board.title).uid(board.uid).description(board.what)
               .tags(["tandem"]).editable().refresh("10s").time("now-1h", "now")
               .with_variable(dashboard.DatasourceVariable("datasource").label("Data source")
                              .type("prometheus"))
               .with_variable(variable("job", "Job", "label_values(tandem_build_info, job)"))
               .with_variable(variable("instance", "Instance",
                                       'label_values(tandem_build_info{job=~"$job"}, instance)'))
               .with_variable(variable("model", "Model",
                                       'label_values(tandem_model_info{job=~"$job", '
                                       'instance=~"$instance"}, model)')))
    x = y = height = 0
    for panel in board.panels:
        w, h = SIZES.get(panel.kind, (WIDTH // 2, 8))
        if x + w > WIDTH or (height and h != height):
            x, y = 0, y + height
        builder = builder.with_panel(build_panel(panel, model.GridPos(h=h, w=w, x=x, y=y)))
        x, height = x + w, h
    return builder.build()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "dashboards")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for board in panels.DASHBOARDS:
        text = json.dumps(build_dashboard(board), cls=JSONEncoder, indent=1, sort_keys=True)
        (out / f"{board.uid}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
