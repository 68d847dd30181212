//! Tree ensembles (`TreeEnsembleClassifier`, `TreeEnsembleRegressor`) as flat arrays, with onnxruntime's arithmetic:
//! comparisons and sums in 32-bit floats, trees in order. Labels are derived from the scores.

use super::ops::{self, Columns, RowOp, Values};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

#[derive(Debug, Clone, Copy)]
enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// `yes..no` are its weights.
    Leaf,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    feature: u32,
    value: f32,
    yes: u32,
    no: u32,
    mode: Mode,
    nan_is_yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Transform {
    None,
    Softmax,
    SoftmaxZero,
    Logistic,
}

#[derive(Debug)]
pub struct Trees {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// (class or target, weight) of the leaves.
    weights: Vec<(u32, f32)>,
    /// Features that a row must have.
    features: usize,
    aggregate: Aggregate,
    transform: Transform,
    base: Vec<f32>,
    /// Scores summed per row: classes or targets; 1 for a binary classifier whose weights are all of one class.
    scores: usize,
    output: Kind,
}

#[derive(Debug)]
enum Kind {
    Classifier { labels: Values, classes: usize, all_positive: bool },
    Regressor,
}

impl Trees {
    pub fn parse(node: &NodeProto) -> TractResult<Trees> {
        let classifier = node.op_type == "TreeEnsembleClassifier";
        if let Some(attribute) = node.attribute.iter().find(|a| a.name.ends_with("_as_tensor")) {
            bail!(
                "attribute `{}` (64-bit trees) is not supported; export the model with 32-bit floats",
                attribute.name
            );
        }
        let prefix = if classifier { "class" } else { "target" };
        let leaf = |name: &str| format!("{prefix}_{name}");
        let weight_ids = ops::ints(node, &leaf("ids"));
        let mut trees = Trees {
            nodes: Vec::new(),
            roots: Vec::new(),
            weights: Vec::new(),
            features: 0,
            aggregate: match ops::text(node, "aggregate_function").as_deref().unwrap_or("SUM") {
                "SUM" => Aggregate::Sum,
                "AVERAGE" => Aggregate::Average,
                "MIN" => Aggregate::Min,
                "MAX" => Aggregate::Max,
                other => bail!("aggregate function `{other}` is not supported"),
            },
            transform: match ops::text(node, "post_transform").as_deref().unwrap_or("NONE") {
                "NONE" => Transform::None,
                "SOFTMAX" => Transform::Softmax,
                "SOFTMAX_ZERO" => Transform::SoftmaxZero,
                "LOGISTIC" => Transform::Logistic,
                other => {
                    bail!("post_transform `{other}` is not supported; NONE, SOFTMAX, SOFTMAX_ZERO and LOGISTIC are")
                }
            },
            base: ops::floats(node, "base_values").to_vec(),
            scores: 0,
            output: Kind::Regressor,
        };
        let weights = ops::floats(node, &leaf("weights"));
        if classifier {
            let (numbers, names) = (ops::ints(node, "classlabels_int64s"), ops::texts(node, "classlabels_strings")?);
            let labels = if names.is_empty() { Values::Ints(numbers.to_vec()) } else { Values::Texts(names) };
            let classes = labels.len();
            let one_class = classes == 2 && weight_ids.windows(2).all(|pair| pair[0] == pair[1]);
            trees.scores = if one_class { 1 } else { classes };
            trees.output = Kind::Classifier { labels, classes, all_positive: weights.iter().all(|w| *w >= 0.0) };
        } else {
            trees.scores = ops::int(node, "n_targets").unwrap_or(1) as usize;
        }
        if trees.scores == 0 || trees.scores > 1 << 16 {
            bail!("{} has {} classes or targets", node.op_type, trees.scores);
        }
        let single = trees.scores == 1;
        let (base, scores) = (trees.base.len(), trees.scores);
        if base != 0 && base != scores && !(single && classifier && base == 2) && !(base == 1 && scores == 2) {
            bail!("{base} base_values for {scores} scores");
        }

        // Leaves first: (tree, node) → weights, in the file's order.
        let (leaf_trees, leaf_nodes) = (ops::ints(node, &leaf("treeids")), ops::ints(node, &leaf("nodeids")));
        if [leaf_trees.len(), leaf_nodes.len(), weight_ids.len()] != [weights.len(); 3] {
            bail!("the {prefix}_* attributes differ in length");
        }
        let mut leaves: HashMap<(i64, i64), Vec<(u32, f32)>> = HashMap::new();
        for i in 0..weights.len() {
            let id = if single { 0 } else { weight_ids[i] };
            if id < 0 || id as usize >= trees.scores {
                bail!("{prefix} id {id} of a leaf is not below {}", trees.scores);
            }
            leaves.entry((leaf_trees[i], leaf_nodes[i])).or_default().push((id as u32, weights[i]));
        }
        trees.parse_nodes(node, &leaves)?;
        Ok(trees)
    }

    fn parse_nodes(&mut self, node: &NodeProto, leaves: &HashMap<(i64, i64), Vec<(u32, f32)>>) -> TractResult<()> {
        let ids = |name: &str| ops::ints(node, name);
        let (tree_ids, node_ids) = (ids("nodes_treeids"), ids("nodes_nodeids"));
        let (features, yes, no) = (ids("nodes_featureids"), ids("nodes_truenodeids"), ids("nodes_falsenodeids"));
        let (values, modes) = (ops::floats(node, "nodes_values"), ops::texts(node, "nodes_modes")?);
        let missing = ids("nodes_missing_value_tracks_true");
        let count = node_ids.len();
        if count == 0 || [tree_ids.len(), features.len(), yes.len(), no.len(), values.len(), modes.len()] != [count; 6]
        {
            bail!("the nodes_* attributes differ in length or are empty");
        }
        let index: HashMap<(i64, i64), u32> = (0..count).map(|i| ((tree_ids[i], node_ids[i]), i as u32)).collect();
        if index.len() != count {
            bail!("a tree has two nodes of one id");
        }
        for i in 0..count {
            let mode = match modes[i].as_str() {
                "BRANCH_LEQ" => Mode::Leq,
                "BRANCH_LT" => Mode::Lt,
                "BRANCH_GTE" => Mode::Gte,
                "BRANCH_GT" => Mode::Gt,
                "BRANCH_EQ" => Mode::Eq,
                "BRANCH_NEQ" => Mode::Neq,
                "LEAF" => Mode::Leaf,
                other => bail!("node mode `{other}` is not supported"),
            };
            let (yes, no, feature) = if let Mode::Leaf = mode {
                let from = self.weights.len() as u32;
                self.weights.extend(leaves.get(&(tree_ids[i], node_ids[i])).into_iter().flatten());
                (from, self.weights.len() as u32, 0)
            } else {
                let child = |id: i64| {
                    index
                        .get(&(tree_ids[i], id))
                        .copied()
                        .with_context(|| format!("tree {} has no node {id}", tree_ids[i]))
                };
                if features[i] < 0 || features[i] > 1 << 20 {
                    bail!("feature {} of a node", features[i]);
                }
                self.features = self.features.max(features[i] as usize + 1);
                (child(yes[i])?, child(no[i])?, features[i] as u32)
            };
            let nan_is_yes = missing.get(i).is_some_and(|flag| *flag != 0);
            self.nodes.push(Node { feature, value: values[i], yes, no, mode, nan_is_yes });
            if i == 0 || tree_ids[i] != tree_ids[i - 1] {
                self.roots.push(i as u32);
            }
        }
        // Every walk must end: no node may be reached twice.
        let mut seen = vec![false; count];
        let mut open = self.roots.clone();
        while let Some(i) = open.pop() {
            if std::mem::replace(&mut seen[i as usize], true) {
                bail!("the nodes of a tree form a cycle");
            }
            let node = &self.nodes[i as usize];
            if !matches!(node.mode, Mode::Leaf) {
                open.extend([node.yes, node.no]);
            }
        }
        Ok(())
    }

    /// The weights of the leaf that `row` reaches.
    #[inline]
    fn leaf(&self, root: u32, row: &[f32]) -> &[(u32, f32)] {
        let mut node = &self.nodes[root as usize];
        loop {
            let x = row[node.feature as usize];
            let yes = match node.mode {
                Mode::Leq => x <= node.value,
                Mode::Lt => x < node.value,
                Mode::Gte => x >= node.value,
                Mode::Gt => x > node.value,
                Mode::Eq => x == node.value,
                Mode::Neq => x != node.value,
                Mode::Leaf => return &self.weights[node.yes as usize..node.no as usize],
            } || (node.nan_is_yes && x.is_nan());
            node = &self.nodes[if yes { node.yes } else { node.no } as usize];
        }
    }

    fn scores(&self, row: &[f32], scores: &mut [f32]) {
        scores.fill(match self.aggregate {
            Aggregate::Sum | Aggregate::Average => 0.0,
            Aggregate::Min => f32::INFINITY,
            Aggregate::Max => f32::NEG_INFINITY,
        });
        for root in &self.roots {
            for (class, weight) in self.leaf(*root, row) {
                let score = &mut scores[*class as usize];
                match self.aggregate {
                    Aggregate::Sum | Aggregate::Average => *score += weight,
                    Aggregate::Min => *score = score.min(*weight),
                    Aggregate::Max => *score = score.max(*weight),
                }
            }
        }
        for score in scores.iter_mut() {
            if self.aggregate == Aggregate::Average {
                *score /= self.roots.len() as f32;
            } else if score.is_infinite() {
                *score = 0.0; // no leaf said anything about this target
            }
        }
    }

    fn transform(&self, scores: &mut [f32]) {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        match self.transform {
            Transform::None => return,
            Transform::Logistic => return scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Transform::Softmax => scores.iter_mut().for_each(|score| *score = (*score - max).exp()),
            Transform::SoftmaxZero => scores.iter_mut().for_each(|score| {
                *score = if score.abs() > 1e-7 { (*score - max).exp() } else { *score * (-max).exp() }
            }),
        }
        let sum: f32 = scores.iter().sum();
        if sum != 0.0 {
            scores.iter_mut().for_each(|score| *score /= sum);
        }
    }

    /// Scores of the one class of a binary classifier → (winner, the probabilities of both).
    fn binary(&self, score: f32, all_positive: bool) -> (usize, [f32; 2]) {
        let score = score + self.base.last().copied().unwrap_or(0.0);
        if all_positive && self.base.len() != 2 {
            return (usize::from(score > 0.5), [1.0 - score, score]);
        }
        let mut both = [-score, score];
        self.transform(&mut both);
        (usize::from(score > 0.0), both)
    }

    fn add_base(&self, scores: &mut [f32]) {
        scores.iter_mut().zip(&self.base).for_each(|(score, base)| *score += base);
    }
}

impl RowOp for Trees {
    fn name(&self) -> &'static str {
        match self.output {
            Kind::Classifier { .. } => "TreeEnsembleClassifier",
            Kind::Regressor => "TreeEnsembleRegressor",
        }
    }

    fn outputs(&self) -> Vec<(Option<DatumType>, Columns)> {
        match &self.output {
            Kind::Classifier { labels, classes, .. } => {
                vec![(Some(labels.datum_type()), Columns::None), (Some(f32::datum_type()), Columns::Fixed(*classes))]
            }
            Kind::Regressor => vec![(Some(f32::datum_type()), Columns::Fixed(self.scores))],
        }
    }

    fn eval(&self, input: &Tensor) -> TractResult<TVec<TValue>> {
        let (rows, columns) = match input.shape() {
            [rows, columns] => (*rows, *columns),
            shape => bail!("{} takes a matrix, found shape {shape:?}", self.name()),
        };
        if columns < self.features.max(1) {
            bail!("{} reads {} features, the input has {columns}", self.name(), self.features);
        }
        let input = input.cast_to::<f32>()?;
        let input = input.try_as_plain_ram()?.as_slice::<f32>()?;
        let mut scores = vec![0f32; self.scores];
        let width = if let Kind::Classifier { classes, .. } = self.output { classes } else { self.scores };
        let mut out = Vec::with_capacity(rows * width);
        let mut winners = Vec::with_capacity(rows);
        for row in input.chunks_exact(columns) {
            self.scores(row, &mut scores);
            match self.output {
                Kind::Classifier { classes: 2, all_positive, .. } if self.scores == 1 => {
                    let (winner, both) = self.binary(scores[0], all_positive);
                    winners.push(winner);
                    out.extend(both);
                }
                _ => {
                    self.add_base(&mut scores);
                    let mut winner = 0;
                    for (class, score) in scores.iter().enumerate() {
                        if *score > scores[winner] {
                            winner = class;
                        }
                    }
                    winners.push(winner);
                    self.transform(&mut scores);
                    out.extend(&scores);
                }
            }
        }
        let out = Tensor::from_shape(&[rows, width], &out)?.into_tvalue();
        Ok(match &self.output {
            Kind::Classifier { labels, .. } => tvec!(labels.pick(&winners).into_tvalue(), out),
            Kind::Regressor => tvec!(out),
        })
    }
}

/// onnxruntime's: exact at the far ends of both sides.
fn logistic(x: f32) -> f32 {
    let y = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - y } else { y }
}
