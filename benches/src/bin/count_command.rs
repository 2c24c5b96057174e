//! Runs as many validated commands in the process as it is told, one after another: `cargo xtask instructions` counts
//! what one of them takes.
//!
//! It is the default path of a host without a store: permits, deadline, unwinding caught, rules of input and output
//! checked.

use anyhow::{Context as _, Result, ensure};
use purista::host::Host;
use purista_benches::sign_up::{SignUp, user_service};

fn main() -> Result<()> {
    let commands = std::env::args().nth(1).context("how many commands?")?;
    let commands: u64 = commands.parse().with_context(|| format!("`{commands}` is no number of commands"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = Host::builder().service(user_service()).start().await?;
        let client = host.client();
        for nth in 1..=commands {
            let answer = client.invoke(SignUp::sample()).await?;
            ensure!(answer.user_id == nth, "the answer to another command");
        }
        host.stop().await;
        Ok(())
    })
}
