//! Projections of the memory engine.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use purista_core::error::HandlerError;
use serde_json::Value;

use super::MemoryStore;
use super::log::{Built, Log};
use super::tables::Tables;
use crate::error::{StoreError, StoreErrorKind};
use crate::position::Position;
use crate::projection::Projection;
use crate::projector::Projected;
use crate::read_models::{Build, BuildPause, BuildRecord, Making, ReadModels, Step, Stepped, caught};

impl MemoryStore {
    /// A projection into this store's own read models, for a host to run.
    pub fn projected(&self, projection: Projection<Tables>) -> Projected {
        Projected::of_tables(self.clone(), projection)
    }

    /// The rows of a table that readers of a projection see; `None` when there is no such projection.
    pub fn rows(&self, projection: &str, table: &str) -> Result<Option<BTreeMap<String, Value>>, StoreError> {
        self.look(|log| {
            let current =
                log.builds.iter().find(|(build, built)| built.is_current && *build.name == *projection);
            current.map(|(_, built)| built.tables.rows(table))
        })
    }
}

impl ReadModels for MemoryStore {
    type Tx = Tables;

    fn builds(&self) -> BoxFuture<'_, Result<Vec<BuildRecord>, StoreError>> {
        Box::pin(async move {
            self.look(|log| {
                let records = log.builds.iter().map(|(build, built)| BuildRecord {
                    build: build.clone(),
                    position: built.position,
                    is_current: built.is_current,
                    pause: built.pause.clone(),
                });
                records.collect()
            })
        })
    }

    fn begin<'a>(
        &'a self,
        build: &'a Build,
        making: Making<Tables>,
    ) -> BoxFuture<'a, Result<Result<(), HandlerError>, StoreError>> {
        Box::pin(async move {
            self.change(|log| {
                if log.builds.contains_key(build) {
                    return Ok(());
                }
                let tables = Tables::default();
                caught(|| making(&tables))?;
                tables.keep();
                let is_current =
                    !log.builds.iter().any(|(other, built)| other.name == build.name && built.is_current);
                let kept = Built { position: Position::START, is_current, pause: None, tables };
                log.builds.insert(build.clone(), kept);
                Ok(())
            })
        })
    }

    fn step<'a>(
        &'a self,
        build: &'a Build,
        from: Position,
        step: Step<Tables>,
    ) -> BoxFuture<'a, Result<Stepped, StoreError>> {
        Box::pin(async move {
            self.change(|log| {
                let kept = log.built(build)?;
                if kept.position != from {
                    let what = format!("the projection {build} is at {}, not at {from}", kept.position);
                    return Err(StoreError::new(StoreErrorKind::Conflict, what));
                }
                let stepped = caught(|| step(&kept.tables));
                match &stepped {
                    Ok(position) => {
                        kept.tables.keep();
                        kept.position = *position;
                    }
                    Err(_) => kept.tables.take_back(),
                }
                Ok(stepped)
            })?
        })
    }

    fn switch_to<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.change(|log| {
                let position = log.built(build)?.position;
                let of_name = |other: &Build| other.name == build.name;
                if log
                    .builds
                    .iter()
                    .any(|(other, built)| of_name(other) && built.is_current && built.position > position)
                {
                    let what = format!("readers would go back to {position} with the projection {build}");
                    return Err(StoreError::new(StoreErrorKind::Conflict, what));
                }
                for (other, built) in log.builds.iter_mut().filter(|(other, _)| of_name(other)) {
                    built.is_current = other == build;
                }
                Ok(())
            })?
        })
    }

    fn pause_build<'a>(
        &'a self,
        build: &'a Build,
        pause: Option<BuildPause>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.change(|log| log.built(build).map(|built| built.pause = pause))? })
    }

    fn discard<'a>(&'a self, build: &'a Build) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.change(|log| drop(log.builds.remove(build))) })
    }
}

impl Log {
    fn built(&mut self, build: &Build) -> Result<&mut Built, StoreError> {
        let unknown = || {
            let what = format!("there is no build of the projection {build}");
            StoreError::new(StoreErrorKind::Invalid, what)
        };
        self.builds.get_mut(build).ok_or_else(unknown)
    }
}
