//! Follows the log into read models of the engine itself: step by step, each committed with its checkpoint.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join};
use purista_core::clock::Clock;

use super::lane::{Lane, fetch};
use super::{BuildProgress, Condition, Control, Turn, Worker, request};
use crate::position::Position;
use crate::projection::Projection;
use crate::query::Query;
use crate::read_models::{Build, BuildPause, BuildRecord, ReadModels};
use crate::store::{StoreError, StoreErrorKind};
use crate::upcast::Upcasters;

/// A build this near to the end of the log, in events, is shown as soon as it is not behind what readers see.
const CAUGHT_UP_WITHIN: u64 = 1_000;

/// The builds of one version of a projection.
pub(super) struct Tables<M: ReadModels> {
    store: M,
    projection: Projection<M::Tx>,
    control: Arc<Control>,
}

impl<M: ReadModels> Worker for Tables<M> {
    fn take_upcasters(&mut self, upcasters: &Upcasters) -> Option<Query> {
        self.projection.take_upcasters(upcasters);
        Some(self.projection.query())
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.own_builds().await.map(drop) })
    }

    fn work<'a>(&'a self, turn: &'a mut Turn) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.follow(turn))
    }

    fn look_on<'a>(&'a self, clock: &'a Clock) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let records = self.records().await?;
            if self.control.wants_resume() {
                for record in records.iter().filter(|record| record.pause.is_some()) {
                    self.store.pause_build(&record.build, None).await?;
                }
                self.control.takes_resume();
            }
            if self.control.wants_rebuild() {
                let (name, version) = (self.projection.name(), self.projection.version());
                request::ask(&self.store, clock, name, version).await?;
                self.control.takes_rebuild();
            }
            self.publish(records.iter().map(|record| (record, 0.0)));
            Ok(())
        })
    }
}

impl<M: ReadModels> Tables<M> {
    pub(super) fn new(store: M, projection: Projection<M::Tx>, control: Arc<Control>) -> Self {
        Self { store, projection, control }
    }

    fn build(&self, generation: u32) -> Build {
        Build { name: self.projection.name().clone(), version: self.projection.version(), generation }
    }

    /// The builds of this version; the first is made when there is none.
    async fn own_builds(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let mut records = self.records().await?;
        if records.is_empty() {
            self.make(1).await?;
            records = self.records().await?;
        }
        Ok(records)
    }

    async fn records(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let first = self.build(0);
        let mut records = self.store.builds().await?;
        records.retain(|record| record.build.name == first.name && record.build.version == first.version);
        Ok(records)
    }

    async fn make(&self, generation: u32) -> Result<Build, StoreError> {
        let build = self.build(generation);
        let made = self.store.begin(&build, self.projection.making()).await?;
        made.map_err(|error| {
            let what = format!("the tables of the projection {build} cannot be made: {}", error.report());
            StoreError::new(StoreErrorKind::Invalid, what)
        })?;
        Ok(build)
    }

    async fn follow(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let clock = turn.clock.clone();
        let mut lanes: Vec<Lane<M::Tx>> = self.own_builds().await?.into_iter().map(Lane::new).collect();
        self.discard_replaced(&mut lanes).await?;
        self.begin_again_if_asked(&mut lanes, &clock).await?;
        let mut head = self.store.head();
        while !turn.is_over() {
            let seen = *head.borrow_and_update();
            if self.control.takes_resume() {
                self.resume(&mut lanes).await?;
            }
            if self.control.takes_rebuild() {
                self.begin_again(&mut lanes).await?;
            }
            if turn.looks() {
                self.begin_again_if_asked(&mut lanes, &clock).await?;
                self.take_up_pauses(&mut lanes).await?;
            }
            let mut has_worked = false;
            for lane in &mut lanes {
                if lane.has_work(seen) {
                    self.advance(lane, &clock).await?;
                    has_worked = true;
                }
            }
            has_worked |= self.switch_if_due(&mut lanes).await?;
            self.publish(lanes.iter().map(|lane| (&lane.record, lane.rate.per_second())));
            if !has_worked {
                tokio::select! {
                    () = turn.over() => {}
                    _ = head.changed() => {}
                    () = self.control.wake.notified() => {}
                    () = turn.time_to_look() => {}
                }
            }
        }
        Ok(())
    }

    /// One step of a build; meanwhile the next page is decoded.
    async fn advance(&self, lane: &mut Lane<M::Tx>, clock: &Clock) -> Result<(), StoreError> {
        if lane.page.is_none() {
            let from = lane.record.position;
            lane.page = Some(fetch(&self.store, &self.projection, from, lane.suspect.as_ref()).await?);
        }
        let build = lane.record.build.clone();
        if let Some((at, reason)) = lane.stands_before() {
            let pause = BuildPause { at: *at, since: clock.now(), reason: reason.clone() };
            tracing::error!(projection = %build, position = %pause.at, reason, "a projection is paused");
            self.store.pause_build(&build, Some(pause.clone())).await?;
            (lane.page, lane.next, lane.suspect) = (None, None, None);
            lane.record.pause = Some(pause);
            return Ok(());
        }
        let from = lane.record.position;
        let Some(ends) = lane.page.as_ref().map(|page| (page.up_to, page.poison.is_some())) else {
            return Ok(());
        };
        let Some((step, left)) = lane.take_step() else { return Ok(()) };
        let wants_next = lane.next.is_none() && !ends.1 && ends.0 < *self.store.head().borrow();
        let next = async {
            if !wants_next {
                return Ok(None);
            }
            fetch(&self.store, &self.projection, ends.0, lane.suspect.as_ref()).await.map(Some)
        };
        let (stepped, next) = join(self.store.step(&build, from, step), next).await;
        if let Some(next) = next? {
            lane.next = Some(next);
        }
        match stepped? {
            Ok(position) => lane.stepped(position, &left),
            Err(error) => lane.failed(&error, &left),
        }
        Ok(())
    }

    async fn resume(&self, lanes: &mut [Lane<M::Tx>]) -> Result<(), StoreError> {
        for lane in lanes.iter_mut().filter(|lane| lane.record.pause.is_some()) {
            self.store.pause_build(&lane.record.build, None).await?;
            lane.record.pause = None;
            tracing::info!(projection = %lane.record.build, "a projection goes on");
        }
        Ok(())
    }

    /// Begins a build from zero beside the one that readers see. One that was on its way is given up.
    async fn begin_again(&self, lanes: &mut Vec<Lane<M::Tx>>) -> Result<(), StoreError> {
        let newest = lanes.iter().map(|lane| lane.record.build.generation).max().unwrap_or(0);
        self.discard(lanes, |record| !record.is_current).await?;
        let build = self.make(newest + 1).await?;
        tracing::info!(projection = %build, "a projection is made anew");
        let records = self.records().await?;
        lanes.extend(records.into_iter().filter(|record| record.build == build).map(Lane::new));
        Ok(())
    }

    /// Somebody else may have stopped it, or let it go on.
    async fn take_up_pauses(&self, lanes: &mut [Lane<M::Tx>]) -> Result<(), StoreError> {
        for record in self.records().await? {
            let lane = lanes.iter_mut().find(|lane| lane.record.build == record.build);
            if let Some(lane) = lane.filter(|lane| lane.record.pause != record.pause) {
                (lane.page, lane.next, lane.suspect) = (None, None, None);
                lane.record.pause = record.pause;
            }
        }
        Ok(())
    }

    /// Begins again when somebody asked for it in another process, or while nobody ran it. A crash between the two makes it begin once more.
    async fn begin_again_if_asked(
        &self,
        lanes: &mut Vec<Lane<M::Tx>>,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let (name, version) = (self.projection.name(), self.projection.version());
        if request::asked_since(&self.store, name, version).await?.is_none() {
            return Ok(());
        }
        self.begin_again(lanes).await?;
        request::withdraw(&self.store, clock, name, version).await
    }

    async fn is_near_the_end(&self, position: Position) -> Result<bool, StoreError> {
        let head = *self.store.head().borrow();
        if head.number().saturating_sub(position.number()) <= CAUGHT_UP_WITHIN {
            return Ok(true);
        }
        // Positions may have gaps, and large ones.
        let between = self.store.count(&Query::all(), position, head, CAUGHT_UP_WITHIN).await?;
        Ok(!between.is_at_least)
    }

    /// Shows a build that has caught up, when what readers see is older. It need not stand at the end of the log, which
    /// moves as long as somebody writes: only never behind what readers see now.
    async fn switch_if_due(&self, lanes: &mut Vec<Lane<M::Tx>>) -> Result<bool, StoreError> {
        let others: Vec<BuildRecord> = lanes
            .iter()
            .map(|lane| &lane.record)
            .filter(|record| !record.is_current && record.pause.is_none())
            .cloned()
            .collect();
        let mut caught_up = None;
        for record in others {
            if self.is_near_the_end(record.position).await? {
                caught_up = Some(record);
                break;
            }
        }
        let Some(new) = caught_up else { return Ok(false) };
        let build = new.build.clone();
        let all = self.store.builds().await?;
        let current = all.iter().find(|record| record.build.name == build.name && record.is_current);
        if current.is_some_and(|current| current.build > build) {
            // Readers see a newer version already: this one follows the log, and nobody looks at it.
            return Ok(false);
        }
        if current.is_some_and(|current| current.position > new.position) {
            return Ok(false);
        }
        match self.store.switch_to(&build).await {
            Ok(()) => {}
            // The old one was faster by an event.
            Err(error) if error.kind() == StoreErrorKind::Conflict => return Ok(true),
            Err(error) => return Err(error),
        }
        tracing::info!(projection = %build, position = %new.position, "readers see another build");
        for lane in lanes.iter_mut() {
            lane.record.is_current = lane.record.build == build;
        }
        self.discard_replaced(lanes).await?;
        Ok(true)
    }

    /// Forgets builds of this version that came before the one that readers see. Other versions are not this one's to
    /// forget: a program of yesterday may want them back.
    async fn discard_replaced(&self, lanes: &mut Vec<Lane<M::Tx>>) -> Result<(), StoreError> {
        let current = lanes.iter().find(|lane| lane.record.is_current).map(|lane| lane.record.build.clone());
        let Some(current) = current else { return Ok(()) };
        self.discard(lanes, |record| record.build < current).await
    }

    async fn discard(
        &self,
        lanes: &mut Vec<Lane<M::Tx>>,
        which: impl Fn(&BuildRecord) -> bool,
    ) -> Result<(), StoreError> {
        let gone: Vec<BuildRecord> =
            lanes.iter().map(|lane| lane.record.clone()).filter(|record| which(record)).collect();
        lanes.retain(|lane| !gone.iter().any(|record| record.build == lane.record.build));
        for record in gone {
            self.store.discard(&record.build).await?;
        }
        Ok(())
    }

    /// Tells how far these builds are, with their rates.
    fn publish<'r>(&self, builds: impl Iterator<Item = (&'r BuildRecord, f64)> + Clone) {
        // First, so that who sees the state finds the position with it.
        if let Some((current, _)) = builds.clone().find(|(record, _)| record.is_current) {
            self.control.reached.send_replace(current.position);
        }
        let paused = builds.clone().find_map(|(record, _)| record.pause.clone());
        self.control.change(|state| {
            state.condition = paused.map_or(Condition::Running, Condition::Paused);
            let told = builds.map(|(record, per_second)| BuildProgress {
                build: record.build.clone(),
                position: record.position,
                is_current: record.is_current,
                per_second,
            });
            state.builds = told.collect();
        });
    }
}
