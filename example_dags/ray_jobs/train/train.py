"""Ray job: train a small classifier, and say how well it does on flowers that it has not seen.

It runs on the cluster, with the packages that the DAG asks for. Each pair of a learning rate and a fold of the
cross-validation is one Ray task. The metrics go back to Airflow on a marked last line.

``iris.csv``: R. A. Fisher's iris data of 1936 (https://doi.org/10.24432/C56C76, CC BY 4.0), lengths and widths in
centimetres of the sepals and petals of 150 flowers, and which of three species they are.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import ray  # noqa: TID253 - it runs on the cluster, where Ray is

SPECIES = ("setosa", "versicolor", "virginica")
Flower = tuple[list[float], int]


def read(file: Path) -> list[Flower]:
    """Return the flowers in random order, with each measure scaled to mean 0 and deviation 1."""
    with file.open(newline="") as text:
        rows = list(csv.reader(text))[1:]
    columns = list(zip(*[[float(value) for value in row[:4]] for row in rows], strict=True))
    scaled = [[(value - mean(column)) / stdev(column) for value in column] for column in columns]
    flowers = [(list(measures), int(row[4])) for *measures, row in zip(*scaled, rows, strict=True)]
    random.Random(1936).shuffle(flowers)  # noqa: S311
    return flowers


def fit(flowers: list[Flower], rate: float, epochs: int) -> Any:
    """Return a model of one linear neuron for each species, trained with a margin loss."""
    from micrograd.nn import MLP  # type: ignore[import-not-found]

    random.seed(0)
    model = MLP(4, [len(SPECIES)])
    for _ in range(epochs):
        for measures, species in flowers:
            scores = model(measures)
            loss = sum(
                ((score - scores[species] + 1).relu() for k, score in enumerate(scores) if k != species), start=0
            )
            model.zero_grad()
            loss.backward()
            for parameter in model.parameters():
                parameter.data -= rate * parameter.grad
    return model


def right(model: Any, flowers: list[Flower]) -> float:
    """Return the share of flowers whose species the model predicts correctly."""
    told = 0
    for measures, species in flowers:
        scores = [score.data for score in model(measures)]
        told += scores.index(max(scores)) == species
    return told / len(flowers)


@ray.remote
def accuracy(flowers: list[Flower], fold: int, folds: int, rate: float, epochs: int) -> float:
    """Train without one fold; the share of that fold's flowers that is told right."""
    seen = [flower for place, flower in enumerate(flowers) if place % folds != fold]
    return right(fit(seen, rate, epochs), flowers[fold::folds])


def main() -> None:
    """Read the arguments, train, and hand the metrics to Airflow by a marked last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.03])
    arguments = parser.parse_args()
    ray.init()
    flowers = ray.put(read(Path(__file__).with_name("iris.csv")))
    found = {
        rate: [
            accuracy.remote(flowers, fold, arguments.folds, rate, arguments.epochs) for fold in range(arguments.folds)
        ]
        for rate in arguments.rates
    }
    scores = {rate: ray.get(references) for rate, references in found.items()}
    for rate, by_fold in scores.items():
        print(f"learning rate {rate:g}: accuracy {mean(by_fold):.3f} of {len(by_fold)} folds")
    best = max(scores, key=lambda rate: mean(scores[rate]))
    metrics = {
        "accuracy": round(mean(scores[best]), 4),
        "deviation": round(stdev(scores[best]), 4),
        "learning_rate": best,
        "epochs": arguments.epochs,
        "flowers": len(ray.get(flowers)),
    }
    print("VERTEX_RAY_RESULT " + json.dumps(metrics), flush=True)


if __name__ == "__main__":
    main()
