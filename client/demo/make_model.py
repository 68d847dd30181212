#!/usr/bin/env python3
"""Makes pumps.onnx, the tree model of `efctl demo`: needs numpy and onnx, nothing else.

Simulates the pumps of pumps.sql (the same formulas, other seeds), cuts the readings into 5 s windows, grows a small
forest on the windows' features and writes it as one TreeEnsembleClassifier. Run it in this folder; it prints how the
model does on a simulation that it has not seen.
"""
import numpy as np
from onnx import TensorProto, checker, helper

PUMPS, PER_SECOND, WINDOW_S = 20, 10, 5
FEATURES = ["vib_avg", "vib_sd", "vib_max", "temp_avg", "temp_max", "pres_avg", "pres_sd", "flow_avg", "flow_sd"]


def simulate(seconds, seed):
    """Window features, whether a fault was planted in the window, and the episode of each window (0: none)."""
    rng = np.random.default_rng(seed)
    seq = np.arange(seconds * PUMPS * PER_SECOND)
    pump, second = seq % PUMPS, seq // (PUMPS * PER_SECOND)
    bucket, into = second // 60, second % 60
    # The training runs plant more faults than the demo, at other places.
    every = 37 if seed == 0 else 7
    fault = ((bucket * 7 + pump * 13 + seed) % every == 0) & (into >= 15) & (into < 45)
    kind, severity = (bucket + pump) % 3, np.where(fault, 0.4 + (into - 15) / 50.0, 0.0)
    n = rng.uniform(-1, 1, (4, len(seq)))
    bearing, cavitation, leak = (severity * (kind == k) for k in range(3))
    vib = 2 + 0.1 * (pump % 5) + n[0] * (0.4 + 1.2 * bearing + 0.8 * cavitation) + 1.5 * bearing
    temp = 60 + pump % 7 + 1.5 * n[1] + 9 * bearing
    pres = 5 + n[2] * (0.3 + 0.7 * cavitation) - 1.2 * cavitation - 0.8 * leak
    flow = 120 + n[3] * 4 - 25 * leak - 8 * cavitation
    ok = rng.uniform(0, 1, len(seq)) > 0.013
    cell = (second // WINDOW_S) * PUMPS + pump
    cells = cell.max() + 1
    count = np.bincount(cell[ok], minlength=cells)

    def mean(x):
        return np.bincount(cell[ok], x[ok], cells) / count

    def sd(x):
        return np.sqrt(np.maximum(mean(x * x) - mean(x) ** 2, 0))

    def largest(x):
        out = np.full(cells, -np.inf)
        np.maximum.at(out, cell[ok], x[ok])
        return out

    x = np.stack([mean(vib), sd(vib), largest(vib), mean(temp), largest(temp), mean(pres), sd(pres), mean(flow), sd(flow)], 1)
    planted = np.zeros(cells, bool)
    planted[np.unique(cell[fault])] = True
    episode = np.zeros(cells, int)
    np.maximum.at(episode, cell, np.where(fault, (bucket + 1) * PUMPS + pump, 0))
    return x.astype(np.float32), planted, episode


def grow(x, y, rng, depth):
    """A tree as nested tuples: (feature, threshold, left, right) or the share of faults in the leaf."""
    if depth == 0 or y.all() or not y.any() or len(y) < 40:
        return float(y.mean())
    best = None
    for f in rng.choice(x.shape[1], 4, replace=False):
        for t in np.unique(np.quantile(x[:, f], np.linspace(0.02, 0.98, 49))).astype(np.float32):
            left = x[:, f] <= t
            k, n = left.sum(), len(y)
            if k < 10 or n - k < 10:
                continue
            p, q = y[left].mean(), y[~left].mean()
            impurity = (k * p * (1 - p) + (n - k) * q * (1 - q)) / n
            if best is None or impurity < best[0]:
                best = (impurity, f, t, left)
    if best is None:
        return float(y.mean())
    _, f, t, left = best
    return (int(f), float(t), grow(x[left], y[left], rng, depth - 1), grow(x[~left], y[~left], rng, depth - 1))


def votes(tree, x):
    if not isinstance(tree, tuple):
        return np.full(len(x), tree)
    f, t, left, right = tree
    return np.where(x[:, f] <= np.float32(t), votes(left, x), votes(right, x))


def encode(forest):
    at = {k: [] for k in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")}
    leaf = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}

    def add(tree_id, tree, ids):
        node = ids[0]
        ids[0] += 1
        row = len(at["nodeids"])
        split = isinstance(tree, tuple)
        for k, v in zip(at, (tree_id, node, tree[0] if split else 0, "BRANCH_LEQ" if split else "LEAF",
                             tree[1] if split else 0.0, 0, 0)):
            at[k].append(v)
        if split:
            at["truenodeids"][row] = add(tree_id, tree[2], ids)
            at["falsenodeids"][row] = add(tree_id, tree[3], ids)
        else:
            for k, v in zip(leaf, (tree_id, node, 1, tree / len(forest))):
                leaf[k].append(v)
        return node

    for tree_id, tree in enumerate(forest):
        add(tree_id, tree, [0])
    attributes = {f"nodes_{k}": v for k, v in at.items()} | {f"class_{k}": v for k, v in leaf.items()}
    node = helper.make_node("TreeEnsembleClassifier", ["features"], ["label", "probabilities"], domain="ai.onnx.ml",
                            name="pumps", classlabels_int64s=[0, 1], post_transform="NONE", **attributes)
    graph = helper.make_graph(
        [node], "pumps",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", len(FEATURES)])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)],
                              producer_name="make_model.py")
    model.ir_version = 8
    checker.check_model(model)
    return model.SerializeToString()


def main():
    rng = np.random.default_rng(7)
    x, y, _ = simulate(2400, 3)
    forest = []
    for _ in range(12):
        rows = rng.integers(0, len(y), len(y))
        forest.append(grow(x[rows], y[rows], rng, 5))
    data = encode(forest)
    with open("pumps.onnx", "wb") as file:
        file.write(data)
    x, y, episode = simulate(2000, 0)
    alarm = np.mean([votes(tree, x) for tree in forest], 0) > 0.5
    planted, found = set(episode[y]), set(episode[y & alarm])
    print(f"{len(data)} bytes; {len(found)} of {len(planted)} episodes found, {(alarm & ~y).sum()} false alarms in "
          f"{len(y)} windows, {(alarm & y).sum()} of {y.sum()} faulty windows")


if __name__ == "__main__":
    main()
