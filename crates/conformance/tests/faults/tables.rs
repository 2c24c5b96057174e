//! Read models that are wrong.

use std::sync::{Arc, Mutex};

use purista_core::error::HandlerError;
use purista_events::memory::tables::Tables;
use purista_events::position::Position;
use purista_events::read_models::{ReadModels as _, Step, caught};

use crate::way::{Engine, Fault, Way, fault, step};

pub(crate) const FAULTS: &[Fault] = &[
    fault("a_step_and_its_position_are_one", "rows of a step that fails are kept", || {
        step(|engine, build, from, step| async move {
            let failed: Arc<Mutex<Option<HandlerError>>> = Arc::default();
            let place = Arc::clone(&failed);
            let kept: Step<Tables> = Box::new(move |rows| {
                Ok(caught(|| step(rows)).unwrap_or_else(|error| {
                    *place.lock().unwrap() = Some(error);
                    from
                }))
            });
            let stepped = engine.store.step(&build, from, kept).await?;
            let failed = failed.lock().unwrap().take();
            Ok(failed.map_or(stepped, Err))
        })
    }),
    fault("a_step_from_elsewhere_is_refused", "a step is taken from wherever the build is", || {
        step(|engine, build, _, step| async move {
            let from = engine.position_of(&build).await?;
            engine.store.step(&build, from, step).await
        })
    }),
    fault("each_event_is_counted_once", "of ten steps one keeps its position", || {
        step(|engine, build, _, step| async move {
            let (from, is_kept) = (engine.position_of(&build).await?, engine.count().is_multiple_of(10));
            let reached: Arc<Mutex<Position>> = Arc::default();
            let place = Arc::clone(&reached);
            let forgets: Step<Tables> = Box::new(move |rows| {
                let position = step(rows)?;
                *place.lock().unwrap() = position;
                Ok(if is_kept { position } else { from })
            });
            let stepped = engine.store.step(&build, from, forgets).await?;
            let reached = *reached.lock().unwrap();
            Ok(stepped.map(|_| reached))
        })
    }),
    fault("an_event_that_nobody_reads_stops_one_projection", "a build that is paused loses its rows", || {
        Way::Pause(Box::new(|engine: Engine, (build, pause)| {
            Box::pin(async move {
                engine.store.discard(&build).await?;
                let _ = engine.store.begin(&build, Box::new(|_| Ok(()))).await?;
                engine.store.pause_build(&build, pause).await
            })
        }))
    }),
    fault(
        "a_new_version_takes_the_place_of_the_old_one",
        "all builds of a projection have the same tables",
        || {
            step(|engine, build, from, step| async move {
                let builds = engine.store.builds().await?;
                let of_name = builds.into_iter().find(|one| one.is_current && one.build.name == build.name);
                let Some(current) = of_name.filter(|one| one.build != build) else {
                    return engine.store.step(&build, from, step).await;
                };
                let reached: Arc<Mutex<Position>> = Arc::default();
                let place = Arc::clone(&reached);
                let (at, into_current) = (current.position, move |rows: &Tables| {
                    *place.lock().unwrap() = step(rows)?;
                    Ok(current.position)
                });
                if let Err(error) = engine.store.step(&current.build, at, Box::new(into_current)).await? {
                    return Ok(Err(error));
                }
                let reached = *reached.lock().unwrap();
                engine.store.step(&build, from, Box::new(move |_| Ok(reached))).await
            })
        },
    ),
    fault("a_projection_is_made_anew_on_demand", "a build that was replaced is never discarded", || {
        Way::Discard
    }),
    fault(
        "a_rebuild_is_shown_while_others_write",
        "the build that is replaced goes, and no other is shown",
        || Way::Switch,
    ),
];
