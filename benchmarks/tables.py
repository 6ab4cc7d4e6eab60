"""Real tables through every command, as they are: `make bench-tables`.

26 files of scikit-learn, statsmodels, palmerpenguins, pydataset and vega-datasets: described, trained, predicted from
the file with `kronmodel predict`, and served by a service that is asked by the columns' names. The table has the scores
of both networks beside those of scikit-learn's methods on the same test rows.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kronmodel.cli.main import main as kronmodel

ENVIRONMENT = Path("build/envs/tables/lib")
STATSMODELS, VEGA, PENGUINS = (
    "statsmodels/datasets/{0}/{0}.csv",
    "vega_datasets/_data/{0}.csv",
    "palmerpenguins/data/{0}.csv",
)
PYDATASET = "pydataset/resources.tar.gz:resources/rdata/csv/{0}.csv"
SIMPLE = ("constant", "linear", "boosting")


@dataclass(frozen=True)
class Table:
    """A table, the column to predict, and further options."""

    source: str
    name: str
    target: str
    options: list[str] = field(default_factory=list)


TABLES = (
    Table("sklearn", "iris", "target"),
    Table("sklearn", "wine", "target"),
    Table("sklearn", "breast_cancer", "target"),
    Table("sklearn", "diabetes", "target"),
    Table("sklearn", "linnerud", "Weight,Waist"),
    Table(PENGUINS, "penguins", "species"),
    Table(PENGUINS, "penguins-raw", "Species"),
    Table(VEGA, "airports", "state", ["--skip-bad-rows"]),
    Table(VEGA, "la-riots", "type", ["--skip-bad-rows"]),
    Table(VEGA, "seattle-weather", "weather"),
    Table(VEGA, "stocks", "price"),
    Table(VEGA, "sf-temps", "temp"),
    Table(VEGA, "iowa-electricity", "net_generation", ["--task", "regression"]),
    Table(STATSMODELS, "fair", "affairs"),
    Table(STATSMODELS, "anes96", "vote"),
    Table(STATSMODELS, "spector", "GRADE"),
    Table(STATSMODELS, "star98", "PR50M"),
    Table(STATSMODELS, "grunfeld", "invest"),
    Table(STATSMODELS, "macrodata", "infl"),
    Table(STATSMODELS, "modechoice", "choice"),
    Table(PYDATASET, "reshape2/tips", "tip"),
    Table(PYDATASET, "car/Salaries", "salary"),
    Table(PYDATASET, "datasets/mtcars", "mpg"),
    Table(PYDATASET, "MASS/birthwt", "low"),
    Table(PYDATASET, "Ecdat/Housing", "price"),
    Table(PYDATASET, "survival/lung", "status"),
)


def file_of(table: Table, folder: Path) -> Path:
    """Path of a table's file, copied out of its package as it is."""
    path = folder / f"{table.name.rpartition('/')[2]}.csv"
    if table.source == "sklearn":
        import sklearn.datasets

        getattr(sklearn.datasets, f"load_{table.name}")(as_frame=True).frame.to_csv(path)
        return path
    (packages,) = ENVIRONMENT.glob("python3*/site-packages")
    source, _, member = table.source.format(table.name).partition(":")
    if not member:
        path.write_bytes((packages / source).read_bytes())
        return path
    with tarfile.open(packages / source) as archive:
        content = archive.extractfile(member)
        assert content is not None
        path.write_bytes(content.read())
    return path


def run(*arguments: str) -> Any:
    """Run a command; return what it prints as JSON.

    Raises:
        RuntimeError: it fails, with its message.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = kronmodel(list(arguments))
    if code != 0:
        raise RuntimeError(" ".join(err.getvalue().split())[-300:])
    return json.loads(out.getvalue())


def measure(table: Table, folder: Path, epochs: list[str]) -> dict[str, Any]:
    """Take a table through `data`, `train` and `predict`; return the scores, and how far it came."""
    path = file_of(table, folder)
    name = path.stem
    found: dict[str, Any] = {"name": name, "target": table.target, "passed": []}
    try:
        data = run("data", str(path), "--target", table.target, *table.options, "--json")
        found |= {"columns": len(data["columns"]), "rows": data["train_samples"] + data["test_samples"]}
        found["left_out"] = sum(column["kind"] == "left out" for column in data["columns"])
        found["passed"].append("data")
        models = str(folder / "models")
        trained = run(
            "train", "--data", str(path), "--target", table.target, *table.options, *epochs, "--out", models, "--json"
        )
        scores = {role: model["test_metric"] for role, model in trained["models"].items()}
        found["scores"] = {role: score["value"] for role, score in scores.items()}
        found["metric"] = scores["dense"]["name"]
        found["baselines"] = {each["name"]: each["scores"][found["metric"]] for each in trained["baselines"]}
        found["passed"].append("train")
        skip = [option for option in table.options if option == "--skip-bad-rows"]
        for role in ("kronecker", "dense"):
            answers = str(folder / f"{name}-{role}.answers.csv")
            run("predict", f"{models}/{name}-{role}", str(path), "--out", answers, "--check", *skip, "--json")
        found["passed"].append("predict")
    except RuntimeError as error:
        found["error"] = str(error)
    return found


def serve(found: list[dict[str, Any]], folder: Path) -> None:
    """Ask a service for the first rows of each table by the columns' names, and compare with `kronmodel predict`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app", "--models", str(folder / "models"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5).close()
                    break
                time.sleep(0.5)
            for each in found:
                if "predict" in each["passed"]:
                    try:
                        ask(address, each, folder)
                        each["passed"].append("serve")
                    except (OSError, ValueError, KeyError) as error:
                        each["error"] = str(error)
        finally:
            service.terminate()


def ask(address: str, each: dict[str, Any], folder: Path) -> None:
    """Send the first test rows of a table, and compare the labels or values with those for the file.

    Raises:
        ValueError: they differ.
    """
    model = f"{each['name']}-kronecker"
    with urllib.request.urlopen(f"{address}/api/models/{model}", timeout=30) as response:
        given = json.load(response)["card"]["input"]
    columns = given.get("columns") or [{"name": name, "kind": "number"} for name in given["names"]]
    from kronmodel.data.tables.columns import column_of
    from kronmodel.data.tables.reader import read_table

    raw = read_table(folder / f"{each['name']}.csv")
    with (folder / f"{each['name']}-kronecker.answers.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))[:5]
    rows: list[dict[str, Any]] = [{} for _ in answers]
    for column in columns:
        values = column_of(column["name"], raw.table.column(column["name"]), column["kind"], comma=False).values
        assert values is not None
        for row, answer in zip(rows, answers, strict=True):
            value = values[int(answer["row"]) - 1]
            missing = value == "" if column["kind"] == "category" else math.isnan(value)
            row[column["name"]] = None if missing else value if column["kind"] == "category" else float(value)
    body = json.dumps({"rows": rows, "models": [model]}).encode()
    request = urllib.request.Request(f"{address}/api/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        outputs = json.load(response)["results"][0]["outputs"]
    for output, answer in zip(outputs, answers, strict=True):
        predicted = [value for name, value in answer.items() if name.startswith("predicted_")]
        got = [output["label"]] if "label" in output else output["value"]
        got = got if isinstance(got, list) else [got]
        same = all(
            mine == theirs if isinstance(mine, str) else abs(mine - float(theirs)) <= 1e-3 * max(1, abs(mine))
            for mine, theirs in zip(got, predicted, strict=True)
        )
        if not same:
            raise ValueError(f"the service answers {got}, kronmodel predict {predicted}")


def shown(metric: str, value: float | None) -> str:
    return "" if value is None else f"{value:.1%}" if metric == "accuracy" else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/tables"))
    parser.add_argument("--epochs", help="instead of the recipe's")
    parser.add_argument("--only", help="names of tables, separated by commas")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tables = [table for table in TABLES if args.only is None or table.name in args.only.split(",")]
    epochs = ["--threads", "1", *(["--epochs", args.epochs] if args.epochs else [])]
    found = []
    for table in tables:
        found.append(measure(table, args.out, epochs))
        print(found[-1], file=sys.stderr, flush=True)
    serve(found, args.out)
    heads = ["table", "predicts", "rows", "columns (left out)", "score", "Kronecker", "dense", *SIMPLE, "passes"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "|".join("---:" if 2 <= index <= 9 and index != 4 else "---" for index in range(len(heads))) + "|")
    for each in found:
        print("| " + " | ".join(line(each)) + " |")
    count = sum(len(each["passed"]) == 4 for each in found)
    print(f"\n{count} of {len(found)} tables pass all of data, train, predict and serve.")


def line(each: dict[str, Any]) -> list[str]:
    """Cells of a table's row."""
    metric, scores = each.get("metric", ""), each.get("scores", {})
    simple = list(each.get("baselines", {}).values())
    values = [scores.get("kronecker"), scores.get("dense"), *simple, *[None] * (3 - len(simple))]
    passed = "all" if len(each["passed"]) == 4 else f"{', '.join(each['passed'])}: {each.get('error', '')}"
    columns = f"{each.get('columns', '')} ({each.get('left_out', '')})"
    cells = [shown(metric, value) for value in values]
    return [each["name"], each["target"], str(each.get("rows", "")), columns, metric, *cells, passed]


if __name__ == "__main__":
    main()
