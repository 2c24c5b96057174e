//! Many callers at a time, each with one question under way.

use anyhow::Result;
use tokio::task::JoinSet;

/// How many callers there are.
pub const CALLERS: u64 = 64;

/// How many threads work.
pub const WORKERS: usize = 2;

/// The runtime of every contestant.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?)
}

/// Runs one caller on each of [`CALLERS`] tasks, until all have done their part.
pub async fn together<F>(caller: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    so_many(CALLERS, caller).await
}

/// The same with as many callers as told.
pub async fn so_many<F>(callers: u64, caller: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(caller());
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
