#!/usr/bin/env python3
"""Models for `tree_times`: a random forest, boosted trees of three libraries, each as ONNX too.

  tree_models.py FOLDER      needs numpy, scikit-learn, xgboost, lightgbm, onnx, skl2onnx

  forest.onnx                scikit-learn, 100 trees 8 deep, by skl2onnx
  boosted.onnx               scikit-learn, 500 trees 6 deep, by skl2onnx
  xgboost.ubj, xgboost.onnx  XGBoost, 500 trees 6 deep, its own file and the same trees as ONNX
  lightgbm.txt               LightGBM, 500 trees of 31 leaves, its own file
  lightgbm.onnx              the same trees as ONNX
"""

import json
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import lightgbm
import numpy as np
import onnx
import xgboost
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

FEATURES = 30


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    x, y = make_classification(8000, FEATURES, n_informative=18, random_state=7)
    x = x.astype(np.float32)
    forest = RandomForestClassifier(100, max_depth=8, random_state=7, n_jobs=1).fit(x, y)
    by_skl2onnx(forest, out / "forest.onnx")
    boosted = GradientBoostingClassifier(n_estimators=500, max_depth=6, random_state=7).fit(x[:2000], y[:2000])
    by_skl2onnx(boosted, out / "boosted.onnx")

    parameters = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.05, "nthread": 1, "tree_method": "hist"}
    made = xgboost.train(parameters, xgboost.DMatrix(x, y), 500)
    made.save_model(out / "xgboost.ubj")
    learner = json.loads(made.save_raw("json"))["learner"]
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    trees = [list(xgboost_nodes(tree)) for tree in learner["gradient_booster"]["model"]["trees"]]
    by_hand(trees, "BRANCH_LT", float(np.log(base / (1 - base))), out / "xgboost.onnx")

    made = lightgbm.LGBMClassifier(n_estimators=500, num_leaves=31, n_jobs=1, verbose=-1).fit(x, y).booster_
    made.save_model(out / "lightgbm.txt")
    trees = [list(lightgbm_nodes(tree["tree_structure"])) for tree in made.dump_model()["tree_info"]]
    by_hand(trees, "BRANCH_LEQ", 0.0, out / "lightgbm.onnx")


def by_skl2onnx(model, path):
    inputs = [("input", FloatTensorType([None, FEATURES]))]
    opset = {"": 15, "ai.onnx.ml": 3}
    onnx.save(convert_sklearn(model, initial_types=inputs, target_opset=opset, options={id(model): {"zipmap": False}}), path)


def xgboost_nodes(tree):
    """(id, feature, threshold, true child, false child) or (id, value) for each node."""
    columns = (tree["split_indices"], tree["split_conditions"], tree["left_children"], tree["right_children"])
    for node, (feature, value, left, right) in enumerate(zip(*columns)):
        yield (node, value) if left == -1 else (node, feature, value, left, right)


def lightgbm_nodes(root):
    """The same. A threshold becomes the float below it, which sends every float the same way."""
    nodes, todo = [], [root]
    while todo:
        nodes.append(todo.pop())
        nodes[-1]["id"] = len(nodes) - 1
        if "leaf_value" not in nodes[-1]:
            todo += [nodes[-1]["left_child"], nodes[-1]["right_child"]]
    for node in nodes:
        if "leaf_value" in node:
            yield node["id"], node["leaf_value"]
            continue
        threshold = np.float32(node["threshold"])
        if threshold > node["threshold"]:
            threshold = np.nextafter(threshold, np.float32(-np.inf))
        yield node["id"], node["split_feature"], float(threshold), node["left_child"]["id"], node["right_child"]["id"]


def by_hand(trees, mode, base, path):
    """A binary TreeEnsembleClassifier of the form that converters write: all votes for one class, then the logistic."""
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    votes = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(trees):
        for node, *rest in sorted(tree):
            feature, value, yes, no = rest if len(rest) == 4 else (0, 0.0, 0, 0)
            row = (number, node, feature, value, mode if len(rest) == 4 else "LEAF", yes, no)
            for column, entry in zip(nodes.values(), row):
                column.append(entry)
            if len(rest) == 1:
                for column, entry in zip(votes.values(), (number, node, 0, rest[0])):
                    column.append(entry)
    attributes = {f"nodes_{key}": column for key, column in nodes.items()}
    attributes |= {f"class_{key}": column for key, column in votes.items()}
    ensemble = helper.make_node(
        "TreeEnsembleClassifier", ["input"], ["label", "probabilities"], domain="ai.onnx.ml", post_transform="LOGISTIC",
        classlabels_int64s=[0, 1], base_values=[base], **attributes,
    )
    graph = helper.make_graph(
        [ensemble], "trees", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


if __name__ == "__main__":
    main()
