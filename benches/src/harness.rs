//! Compares by turns: every round runs each contestant once, in another order, so that what else the machine does meets all
//! of them alike. Of each contestant the median round counts; the ratio is taken round by round, of neighbours in time.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;

/// The fewest rounds that a figure may rest on.
pub const ROUNDS_MIN: usize = 5;

/// The argument that asks for a smoke run.
pub const SMOKE: &str = "--smoke";

/// By how much the work of a round is divided in a smoke run.
const SMOKE_DIVISOR: u64 = 100;

/// One way of doing the work.
pub struct Contestant<'r> {
    name: &'static str,
    operations: u64,
    round: Box<dyn FnMut() -> BoxFuture<'r, Result<()>> + 'r>,
}

impl<'r> Contestant<'r> {
    /// `round` does the work `operations` times.
    pub fn new(
        name: &'static str,
        operations: u64,
        round: impl FnMut() -> BoxFuture<'r, Result<()>> + 'r,
    ) -> Self {
        Self { name, operations, round: Box::new(round) }
    }

    /// One round, apart from any comparison.
    pub fn round(&mut self) -> BoxFuture<'r, Result<()>> {
        (self.round)()
    }
}

impl std::fmt::Debug for Contestant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What one round showed: operations a second, and microseconds of processor time an operation.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Operations a second.
    pub rate: f64,
    /// What an operation cost, on all processors together.
    pub cost_us: f64,
}

/// The figures of all contestants, round by round.
#[derive(Debug)]
pub struct Comparison {
    names: Vec<&'static str>,
    rounds: Vec<Vec<Figure>>,
}

/// The smallest, the middle and the largest of several figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure; without any, all three are no number.
    pub fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(sorted.len() / 2), max: at(sorted.len().saturating_sub(1)) }
    }
}

/// Whether the command line asks for a smoke run, with its argument [`SMOKE`]: one short round that shows that the program
/// still works. Its figures mean nothing.
pub fn is_smoke() -> bool {
    std::env::args().any(|argument| argument == SMOKE)
}

/// The amount of work in a round: `full`, or a hundredth of it (at least 1) in a smoke run.
pub fn work(full: u64) -> u64 {
    if is_smoke() { (full / SMOKE_DIVISOR).max(1) } else { full }
}

/// The number of rounds: one in a smoke run, otherwise the argument `--rounds N` or this default.
///
/// # Errors
///
/// Fails if the argument is not a number, or lower than [`ROUNDS_MIN`].
pub fn rounds_asked(default: usize) -> Result<usize> {
    if is_smoke() {
        return Ok(1);
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--rounds").skip(1);
    let rounds = match arguments.next() {
        Some(text) => text.parse().with_context(|| format!("`{text}` is no number of rounds"))?,
        None => default,
    };
    ensure!(rounds >= ROUNDS_MIN, "a figure rests on at least {ROUNDS_MIN} rounds");
    Ok(rounds)
}

/// Runs all contestants by turns, after one round that does not count.
pub async fn compare(rounds: usize, mut contestants: Vec<Contestant<'_>>) -> Result<Comparison> {
    let names: Vec<_> = contestants.iter().map(|contestant| contestant.name).collect();
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let mut figures = vec![Figure { rate: f64::NAN, cost_us: f64::NAN }; contestants.len()];
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        order.rotate_left(round % contestants.len().max(1));
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (Some(contestant), Some(figure)) = (contestants.get_mut(index), figures.get_mut(index))
            else {
                continue;
            };
            let (cost, start) = (processor_seconds()?, Instant::now());
            contestant.round().await.with_context(|| format!("a round of {}", contestant.name))?;
            let took = start.elapsed().as_secs_f64();
            let operations = amount(contestant.operations);
            let cost_us = (processor_seconds()? - cost) * 1e6 / operations;
            *figure = Figure { rate: checked(contestant.name, operations / took)?, cost_us };
        }
        if round > 0 {
            measured.push(figures);
        }
    }
    Ok(Comparison { names, rounds: measured })
}

impl Comparison {
    fn spread(&self, index: usize, figure: impl Fn(&Figure) -> f64) -> Spread {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(index)).map(figure))
    }

    /// How many times as fast the one at `index` was as the one at `other`, round by round.
    pub fn ratio(&self, index: usize, other: usize) -> Spread {
        let pairs = self.rounds.iter().filter_map(|round| Some((round.get(index)?, round.get(other)?)));
        Spread::of(pairs.map(|(one, other)| one.rate / other.rate))
    }

    /// A table for people; its last column compares the one at `subject` with each.
    pub fn table(&self, title: &str, subject: usize) -> String {
        let mut text = format!(
            "{title}: median (min to max) of {} rounds\n{:<44} {:>32} {:>22} {:>24}\n",
            self.rounds.len(),
            "",
            "a second",
            "processor us each",
            "ratio"
        );
        for (index, name) in self.names.iter().enumerate() {
            let rate = self.spread(index, |figure| figure.rate);
            let cost = self.spread(index, |figure| figure.cost_us);
            let rate = format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max);
            let cost = format!("{:.2} ({:.2} to {:.2})", cost.median, cost.min, cost.max);
            let ratio = self.ratio(subject, index);
            let ratio = if index == subject {
                "-".to_owned()
            } else {
                format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max)
            };
            // Writing to a text does not fail.
            let _ = writeln!(text, "{name:<44} {rate:>32} {cost:>22} {ratio:>24}");
        }
        text
    }
}

/// The processor time that all threads of this process have had so far, as the scheduler counts it.
fn processor_seconds() -> Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").context("list the threads")? {
        // A thread that has ended meanwhile is not counted; those that work live on.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0_u64);
    }
    Ok(amount(nanoseconds) / 1e9)
}

/// Prints a figure with its spread.
///
/// # Errors
///
/// Fails if the figure is not a positive number: no round was measured.
pub fn show(name: &str, spread: Spread, places: usize) -> Result<()> {
    checked(name, spread.median)?;
    println!("{name:<52} {:.places$} ({:.places$} to {:.places$})", spread.median, spread.min, spread.max);
    Ok(())
}

/// The figure, if it is a positive number.
fn checked(name: &str, figure: f64) -> Result<f64> {
    ensure!(figure.is_finite() && figure > 0.0, "nothing was measured of {name}: {figure}");
    Ok(figure)
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn amount(count: u64) -> f64 {
    count as f64
}
