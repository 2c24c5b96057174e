//! The duty that covers what nobody thought of: random histories end the same in the engine and in the memory engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::{TestCaseError, prop_assert, prop_assert_eq};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use purista_core::clock::Clock;
use purista_core::store::Expect;
use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::memory::MemoryStore;
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore};

use super::StoreSystem;
use super::given::Tenant;
use super::stage::{Contents, Stage};

mod history;

use history::{Draft, DraftCondition, DraftExpect, Step};

/// The most steps of one.
const STEPS_MAX: usize = 50;
/// After how many steps everything is compared; receipts and refusals are after each.
const COMPARED_EVERY: usize = 10;
/// The variable that holds the seed of the histories, in hexadecimal digits.
const SEED: &str = "PURISTA_SEED";
/// How often a history that fails is made smaller.
const SHRINKS_MAX: u32 = 400;

/// Whatever is committed, waited for and opened again, in whichever order: the engine gives the same receipts, refuses
/// the same batches for the same reasons, and holds the same as the memory engine. Times, gaps between positions and
/// between versions of state are the engine's own.
#[expect(clippy::unused_async, reason = "duties are async; this one blocks, because proptest does")]
pub async fn model_agrees(stage: &mut Stage) {
    let mut config = Config { failure_persistence: None, max_shrink_iters: SHRINKS_MAX, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = stage.histories();
    }
    let seed = std::env::var(SEED).ok().and_then(|seed| u128::from_str_radix(&seed, 16).ok());
    let seed = seed.unwrap_or_else(|| Clock::system().random());
    println!("{SEED}={seed:032x} plays the same histories again");
    let bytes = [seed.to_be_bytes(); 2].concat();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Handle::current();
    let tried = tokio::task::block_in_place(|| {
        let histories = proptest::collection::vec(history::step(), 1..=STEPS_MAX);
        runner.run(&histories, |steps| runtime.block_on(agree(stage, steps).boxed()))
    });
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}

/// The memory engine as a system.
struct Model(MemoryStore);

impl StoreSystem for Model {
    fn open(&self, _clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async { Arc::new(self.0.reopen()) as Arc<dyn EventStore> })
    }
}

async fn agree(stage: &Stage, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut play = Play::begin(stage).await;
    for (number, step) in (1..).zip(steps) {
        match step {
            Step::Commit(draft) => play.commit(&draft).await?,
            Step::Wait(seconds) => play.engine.clock.advance(Duration::from_secs(seconds)),
            Step::Reopen => play.engine.reopen().await,
        }
        if number % COMPARED_EVERY == 0 {
            play.compare().await?;
        }
    }
    play.compare().await?;
    play.engine.store.close().await.expect("a store closes");
    Ok(())
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Model,
    Engine,
}

/// One history, played on both sides.
struct Play {
    model: Stage,
    engine: Stage,
    /// What both sides call the same moment, for each query at the begin of each commit.
    tokens: Vec<Vec<[ReadToken; 2]>>,
    /// The model's position of each of the engine's.
    positions: HashMap<Position, Position>,
    /// Versions that both sides gave to one write of a key: the model's, and the engine's.
    versions: HashMap<(Tenant, String), Vec<[u64; 2]>>,
    batches: Vec<Batch>,
}

impl Play {
    async fn begin(stage: &Stage) -> Self {
        let engine = stage.another().await;
        let model = MemoryStore::new(engine.clock.clock());
        let model = engine.beside(Box::new(Model(model))).await;
        let positions = HashMap::from([(Position::START, Position::START)]);
        Self { model, engine, tokens: Vec::new(), positions, versions: HashMap::new(), batches: Vec::new() }
    }

    async fn commit(&mut self, draft: &Draft) -> Result<(), TestCaseError> {
        let mut tokens = Vec::new();
        for query in history::queries() {
            tokens.push([self.model.view(&query).await.1, self.engine.view(&query).await.1]);
        }
        self.tokens.push(tokens);
        let mut batch = draft.batch(&self.engine.clock);
        if let Some(earlier) = draft.repeats.and_then(|number| self.batches.iter().rev().nth(number)) {
            batch.id = earlier.id.clone();
        }
        let letters = self.batches.iter().rev().flat_map(|batch| &batch.dead_letters);
        let forgotten = draft.forgets.and_then(|number| letters.map(|letter| &letter.id).nth(number));
        batch.forgotten_dead_letters = forgotten.cloned().into_iter().collect();
        let [of_model, of_engine] = [Side::Model, Side::Engine].map(|side| self.on(side, &batch, draft));
        self.batches.push(batch);

        let tenant = of_model.tenant.clone();
        let keys: Vec<String> = of_model.state.iter().map(|change| change.key.clone()).collect();
        let expected = self.model.store.commit(of_model).await;
        let actual = self.engine.store.commit(of_engine).await;
        match (expected, actual) {
            (Ok(expected), Ok(actual)) => self.take_in(&expected, actual, &tenant, keys),
            (Err(expected), Err(actual)) => {
                prop_assert_eq!(expected.kind(), actual.kind(), "expected {}, was {}", expected, actual);
                Ok(())
            }
            (expected, actual) => Err(TestCaseError::fail(format!("expected {expected:?}, was {actual:?}"))),
        }
    }

    /// The batch with the tokens and versions of one side.
    fn on(&self, side: Side, batch: &Batch, draft: &Draft) -> Batch {
        let mut batch = batch.clone();
        let of_side = usize::from(side == Side::Engine);
        for (append, drafted) in batch.appends.iter_mut().zip(&draft.appends) {
            if let DraftCondition::Unless { query, age } = drafted.condition {
                let moment = self.tokens.iter().rev().nth(age).or(self.tokens.first());
                let token = moment.and_then(|tokens| tokens.get(query)?.get(of_side));
                let query = history::queries().into_iter().nth(query);
                if let (Some(query), Some(token)) = (query, token) {
                    append.condition = Condition::Unless(query, token.clone());
                }
            }
        }
        for (change, drafted) in batch.state.iter_mut().zip(&draft.state) {
            if let DraftExpect::Version { age } = drafted.expect {
                let versions = self.versions.get(&(batch.tenant.clone(), change.key.clone()));
                let version = versions.and_then(|versions| versions.iter().rev().nth(age)?.get(of_side));
                // A version that no write ever got.
                change.expect = Expect::Version(version.copied().unwrap_or(1_000_000));
            }
        }
        batch
    }

    /// Compares two receipts and learns from them what the engine calls what.
    fn take_in(
        &mut self,
        expected: &Receipt,
        actual: Receipt,
        tenant: &Tenant,
        keys: Vec<String>,
    ) -> Result<(), TestCaseError> {
        if !expected.is_repeated {
            let pairs = actual.positions.iter().copied().zip(expected.positions.iter().copied());
            self.positions.extend(pairs);
            let pairs = expected.state_versions.iter().copied().zip(actual.state_versions.iter().copied());
            for (key, (model, engine)) in keys.into_iter().zip(pairs).filter(|(_, (model, _))| *model > 0) {
                let versions = self.versions.entry((tenant.clone(), key)).or_default();
                prop_assert!(versions.iter().all(|[_, before]| *before < engine), "a version came again");
                versions.push([model, engine]);
            }
        }
        let removals = |receipt: &Receipt| {
            receipt.state_versions.iter().map(|version| *version == 0).collect::<Vec<_>>()
        };
        prop_assert_eq!(removals(expected), removals(&actual));
        let actual = Receipt {
            position: self.of_model(actual.position)?,
            positions: actual.positions.iter().map(|it| self.of_model(*it)).collect::<Result<_, _>>()?,
            recorded_at: expected.recorded_at,
            state_versions: expected.state_versions.clone(),
            ..actual
        };
        prop_assert_eq!(expected, &actual);
        Ok(())
    }

    fn of_model(&self, position: Position) -> Result<Position, TestCaseError> {
        let known = self.positions.get(&position).copied();
        known.ok_or_else(|| TestCaseError::fail(format!("nothing was recorded at {position}")))
    }

    /// Compares everything that is held, and what queries find in it.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let (expected, actual) = (self.model.contents().await, self.engine.contents().await);
        let times: Vec<_> = actual.events.iter().map(|event| event.recorded_at).collect();
        prop_assert!(times.is_sorted(), "recorded times run back: {:?}", times);
        let actual = self.contents_of_model(actual, &expected)?;
        prop_assert_eq!(&expected, &actual);
        let forms = self.model.store.forms().await.expect("forms are read");
        let mut of_engine = self.engine.store.forms().await.expect("forms are read");
        for (form, expected) in of_engine.iter_mut().zip(&forms) {
            form.oldest = self.of_model(form.oldest)?;
            form.newest = self.of_model(form.newest)?;
            form.count = form.count.or(expected.count);
        }
        prop_assert_eq!(&forms, &of_engine);
        for query in history::queries() {
            self.compare_query(&query, &expected.events).await?;
        }
        Ok(())
    }

    /// Compares what one query finds, from somewhere in the middle, with what it selects of all events.
    async fn compare_query(&self, query: &Query, all: &[Recorded]) -> Result<(), TestCaseError> {
        let selected: Vec<Position> =
            all.iter().filter(|event| query.selects(event)).map(|event| event.position).collect();
        let engine = &self.engine;
        let (view, _) = engine.view(query).await;
        prop_assert_eq!(&self.places(&view)?, &selected);

        let middle = view.get(view.len() / 2).map_or(Position::START, |event| event.position);
        let of_model = self.of_model(middle)?;
        let page = engine.page(query, middle, Direction::Forwards, 3).await;
        let after = selected.iter().filter(|place| **place > of_model).take(3);
        prop_assert_eq!(self.places(&page)?, after.copied().collect::<Vec<_>>());
        let page = engine.page(query, middle, Direction::Backwards, 3).await;
        let before = selected.iter().rev().filter(|place| **place < of_model).take(3);
        prop_assert_eq!(self.places(&page)?, before.copied().collect::<Vec<_>>());

        let followed = engine.follow(query, 3).await;
        prop_assert_eq!(self.places(&followed)?, selected);
        Ok(())
    }

    fn places(&self, events: &[Recorded]) -> Result<Vec<Position>, TestCaseError> {
        events.iter().map(|event| self.of_model(event.position)).collect()
    }

    /// What the engine holds, with the model's positions, versions and times.
    fn contents_of_model(
        &self,
        mut actual: Contents,
        expected: &Contents,
    ) -> Result<Contents, TestCaseError> {
        for event in &mut actual.events {
            event.position = self.of_model(event.position)?;
        }
        for (event, of_model) in actual.events.iter_mut().zip(&expected.events) {
            event.recorded_at = of_model.recorded_at;
        }
        for (key, value) in &mut actual.state {
            let versions = self.versions.get(key).map(Vec::as_slice).unwrap_or_default();
            let known = versions.iter().find(|[_, engine]| *engine == value.version);
            let Some([model, _]) = known else {
                return Err(TestCaseError::fail(format!("no write of {key:?} got {}", value.version)));
            };
            value.version = *model;
        }
        Ok(actual)
    }
}
