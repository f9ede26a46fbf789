//! Puts all mutants that cargo-mutants lists into the sources at once, each behind `crate::mutant::is(NUMBER)`, so that one
//! build has them all and a variable chooses one.
//!
//! usage: mutants TREE LIST DROPPED
//!
//! Rewrites the sources in TREE. LIST is what `cargo mutants --list --json` prints; a mutant's number is its place there,
//! from 1 on. DROPPED has the numbers that are left out, one a line. Prints a line for each that is in: its number, its
//! file, and the bytes between which it stands there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::{env, fs};

use proc_macro2::LineColumn;
use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The variable is read once.
const SWITCH: &str = "
#[allow(unreachable_pub, dead_code)]
pub(crate) mod mutant {
    pub(crate) fn is(number: u32) -> bool {
        static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        number == *CHOSEN.get_or_init(|| std::env::var(\"MUTANT\").ok().and_then(|it| it.parse().ok()).unwrap_or(0))
    }
}
";

/// A mutant: its number, and what stands in the place of the original.
type Mutant = (usize, String);

enum Kind {
    /// A function returns early.
    Function,
    /// The operands, and the operator between them.
    Binary(Range<usize>, Range<usize>),
    /// The operand.
    Unary(Range<usize>),
    Guard,
    /// An arm without a guard; the node is its pattern.
    Arm,
    /// An arm with one; the node is its guard.
    GuardedArm,
}

struct Node {
    at: Range<usize>,
    kind: Kind,
    mutants: Vec<Mutant>,
}

/// Where things begin, by line and column.
struct Finder<'a> {
    lines: &'a [usize],
    text: &'a str,
    operators: HashMap<usize, (Range<usize>, Range<usize>, Range<usize>)>,
    negations: HashMap<usize, (Range<usize>, Range<usize>)>,
    guards: HashMap<usize, Range<usize>>,
    arms: HashMap<usize, (Range<usize>, Option<Range<usize>>)>,
}

impl Finder<'_> {
    fn offset(&self, at: LineColumn) -> usize {
        let line = &self.text[self.lines[at.line - 1]..];
        let column = line.char_indices().nth(at.column).map_or(line.len(), |(place, _)| place);
        self.lines[at.line - 1] + column
    }

    fn range(&self, it: &impl Spanned) -> Range<usize> {
        let span = it.span();
        self.offset(span.start())..self.offset(span.end())
    }
}

/// `let` is no expression, and stands in chains only.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(it) => has_let(&it.left) || has_let(&it.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr_binary(&mut self, it: &'ast syn::ExprBinary) {
        if !has_let(&it.left) && !has_let(&it.right) {
            let (left, right) = (self.range(&*it.left), self.range(&*it.right));
            let all = left.start..right.end;
            self.operators.insert(self.range(&it.op).start, (all, left, right));
        }
        visit::visit_expr_binary(self, it);
    }

    fn visit_expr_unary(&mut self, it: &'ast syn::ExprUnary) {
        let (all, operand) = (self.range(it), self.range(&*it.expr));
        self.negations.insert(all.start, (all, operand));
        visit::visit_expr_unary(self, it);
    }

    fn visit_arm(&mut self, it: &'ast syn::Arm) {
        let guard = it.guard.as_ref().filter(|(_, guard)| !has_let(guard));
        let guard = guard.map(|(_, guard)| self.range(&**guard));
        if let Some(guard) = &guard {
            self.guards.insert(guard.start, guard.clone());
        }
        if guard.is_some() == it.guard.is_some() {
            let place = (self.range(&it.pat), guard);
            self.arms.insert(self.range(it).start, place);
        }
        visit::visit_arm(self, it);
    }
}

/// Writes a source with its nodes.
struct Writer<'a> {
    text: &'a str,
    nodes: &'a [Node],
    written: String,
    places: Vec<(usize, Range<usize>)>,
}

impl Writer<'_> {
    /// Writes a part of the source. The nodes in it are those from `next` on; returns the first behind it.
    fn write(&mut self, part: Range<usize>, mut next: usize) -> usize {
        let mut from = part.start;
        while let Some(node) = self.nodes.get(next).filter(|it| it.at.start < part.end) {
            self.written += &self.text[from..node.at.start];
            from = node.at.end;
            next = self.write_node(next);
        }
        self.written += &self.text[from..part.end];
        next
    }

    fn put(&mut self, number: usize, text: &str) {
        let start = self.written.len();
        self.written += text;
        self.places.push((number, start..self.written.len()));
    }

    fn write_node(&mut self, number: usize) -> usize {
        let Node { at, kind, mutants } = &self.nodes[number];
        let is = |number: usize| format!("crate::mutant::is({number})");
        match kind {
            Kind::Function => {
                for (number, replacement) in mutants {
                    self.put(*number, &format!("if {} {{ return {replacement}; }} ", is(*number)));
                }
                self.write(at.clone(), number + 1)
            }
            Kind::Binary(left, right) => {
                self.written += "(";
                let (left, right) = (&self.text[left.clone()], &self.text[right.clone()]);
                for (number, operator) in mutants {
                    let mutated = format!("if {} {{ ({left}) {operator} ({right}) }} else ", is(*number));
                    self.put(*number, &mutated);
                }
                self.written += "{ ";
                let next = self.write(at.clone(), number + 1);
                self.written += " })";
                next
            }
            Kind::Unary(operand) => {
                let operand = &self.text[operand.clone()];
                self.written += "(";
                for (number, _) in mutants {
                    self.put(*number, &format!("if {} {{ {operand} }} else ", is(*number)));
                }
                self.written += "{ ";
                let next = self.write(at.clone(), number + 1);
                self.written += " })";
                next
            }
            Kind::Guard => {
                self.written += "(";
                for (number, replacement) in mutants {
                    let text = match replacement.as_str() {
                        "true" => format!("{} || ", is(*number)),
                        _ => format!("!{} && ", is(*number)),
                    };
                    self.put(*number, &text);
                }
                self.written += "(";
                let next = self.write(at.clone(), number + 1);
                self.written += "))";
                next
            }
            Kind::Arm => {
                let next = self.write(at.clone(), number + 1);
                for (number, _) in mutants {
                    self.put(*number, &format!(" if !{}", is(*number)));
                }
                next
            }
            Kind::GuardedArm => {
                for (number, _) in mutants {
                    self.put(*number, &format!("!{} && ", is(*number)));
                }
                self.written += "(";
                let next = self.write(at.clone(), number + 1);
                self.written += ")";
                next
            }
        }
    }
}

fn place(value: &Value) -> LineColumn {
    let number = |name: &str| value[name].as_u64().expect("a number") as usize;
    LineColumn { line: number("line"), column: number("column") - 1 }
}

fn rewrite(path: &str, mutants: &[(usize, &Value)], print_as: &str) {
    let text = fs::read_to_string(path).expect("a source");
    let file = syn::parse_file(&text).expect("Rust");
    let lines: Vec<_> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut finder = Finder {
        lines: &lines,
        text: &text,
        operators: HashMap::new(),
        negations: HashMap::new(),
        guards: HashMap::new(),
        arms: HashMap::new(),
    };
    finder.visit_file(&file);
    let mut nodes: BTreeMap<(usize, std::cmp::Reverse<usize>, u8), Node> = BTreeMap::new();
    for (number, mutant) in mutants {
        let start = finder.offset(place(&mutant["span"]["start"]));
        let end = finder.offset(place(&mutant["span"]["end"]));
        let found = match mutant["genre"].as_str().expect("a genre") {
            "FnValue" => Some((start..end, Kind::Function, 0)),
            "BinaryOperator" => finder.operators.get(&start).map(|(all, left, right)| {
                (all.clone(), Kind::Binary(left.clone(), right.clone()), 1)
            }),
            "UnaryOperator" => finder
                .negations
                .get(&start)
                .map(|(all, operand)| (all.clone(), Kind::Unary(operand.clone()), 2)),
            "MatchArmGuard" => finder.guards.get(&start).map(|guard| (guard.clone(), Kind::Guard, 0)),
            "MatchArm" => finder.arms.get(&start).map(|(pattern, guard)| match guard {
                Some(guard) => (guard.clone(), Kind::GuardedArm, 0),
                None => (pattern.clone(), Kind::Arm, 0),
            }),
            _ => None,
        };
        let Some((at, kind, order)) = found else { continue };
        // A guard that is replaced, and whose arm is taken away, is one node in another.
        let order = if matches!(kind, Kind::Guard) { order + 1 } else { order };
        let key = (at.start, std::cmp::Reverse(at.end), order);
        let node = nodes.entry(key).or_insert(Node { at, kind, mutants: Vec::new() });
        let replacement = mutant["replacement"].as_str().unwrap_or_default().to_owned();
        node.mutants.push((*number, replacement));
    }
    let nodes: Vec<_> = nodes.into_values().collect();
    let mut writer = Writer { text: &text, nodes: &nodes, written: String::new(), places: Vec::new() };
    writer.write(0..text.len(), 0);
    fs::write(path, &writer.written).expect("a source");
    for (number, at) in &writer.places {
        println!("{number} {print_as} {} {}", at.start, at.end);
    }
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [tree, list, dropped] = &arguments[..] else { panic!("usage: mutants TREE LIST DROPPED") };
    let list: Value = serde_json::from_str(&fs::read_to_string(list).expect("a list")).expect("JSON");
    let dropped: HashSet<usize> =
        fs::read_to_string(dropped).expect("a list").lines().filter_map(|it| it.parse().ok()).collect();
    let mut of_file: BTreeMap<&str, Vec<(usize, &Value)>> = BTreeMap::new();
    for (number, mutant) in (1..).zip(list.as_array().expect("a list")) {
        if !dropped.contains(&number) {
            of_file.entry(mutant["file"].as_str().expect("a file")).or_default().push((number, mutant));
        }
    }
    for (file, mutants) in of_file {
        rewrite(&format!("{tree}/{file}"), &mutants, file);
    }
    let main = format!("{tree}/src/main.rs");
    let text = fs::read_to_string(&main).expect("a source");
    fs::write(main, text + SWITCH).expect("a source");
}
