//! A POST that becomes a validated command, beside a bare axum endpoint that decodes and validates the same struct; both are
//! asked by `wrk -c64`, by turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use garde::Validate;
use purista::host::Host;
use purista_benches::callers::{CALLERS, runtime};
use purista_benches::harness::{Spread, is_smoke, rounds_asked};
use purista_benches::sign_up::{Accounts, SignUp, SignedUp, user_service};
use purista_http::gateway::Gateway;

/// How long one round of one contestant is.
const SECONDS: u64 = 4;

/// The shortest round of wrk, in a smoke run.
fn seconds() -> u64 {
    if is_smoke() { 1 } else { SECONDS }
}

const SCRIPT: &str = r#"wrk.method = "POST"
wrk.body = '{"email":"ada@example.com","name":"Ada Lovelace"}'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %d\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(99)))
end
"#;

/// What one run of wrk showed.
#[derive(Debug, Clone, Copy)]
struct Load {
    rate: f64,
    slowest_of_hundred_ms: f64,
}

async fn bare(
    State(accounts): State<Arc<Accounts>>,
    Json(input): Json<SignUp>,
) -> Result<Json<SignedUp>, StatusCode> {
    input.validate().map_err(|_| StatusCode::BAD_REQUEST)?;
    let output = accounts.sign_up(input);
    output.validate().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(output))
}

/// Asks `url` for a while with 64 connections.
fn load(script: &Path, url: &str, seconds: u64) -> Result<Load> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CALLERS}"), &format!("-d{seconds}s"), "-s"]).arg(script).arg(url);
    let output = match wrk.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("this needs the program wrk: `apt-get install wrk`")
        }
        output => output.context("start wrk")?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("FIGURES "));
    let figures: Vec<f64> =
        line.unwrap_or_default().split(' ').filter_map(|figure| figure.parse().ok()).collect();
    let [requests, microseconds, errors, slow] = figures[..] else {
        bail!("wrk said nothing of use: {text}")
    };
    ensure!(errors == 0.0, "{errors} of {requests} requests to {url} failed");
    Ok(Load { rate: requests * 1e6 / microseconds, slowest_of_hundred_ms: slow / 1e3 })
}

fn line(name: &str, loads: &[Load]) -> String {
    let rate = Spread::of(loads.iter().map(|load| load.rate));
    let slow = Spread::of(loads.iter().map(|load| load.slowest_of_hundred_ms));
    format!(
        "{name:<24} {:>8.0} a second ({:.0} to {:.0}); 99 of 100 within {:.1} ms ({:.1} to {:.1})",
        rate.median, rate.min, rate.max, slow.median, slow.min, slow.max
    )
}

/// One after the other, by turns.
fn measure(rounds: usize, urls: [&str; 2]) -> Result<()> {
    let script: PathBuf = std::env::temp_dir().join(format!("purista-benches-{}.lua", std::process::id()));
    std::fs::write(&script, SCRIPT)?;
    let [mut gateway, mut axum] = [Vec::new(), Vec::new()];
    for url in urls {
        load(&script, url, 1)?;
    }
    for round in 0..rounds {
        // Each goes first in every other round.
        let mut pair = [(urls[0], &mut gateway), (urls[1], &mut axum)];
        pair.rotate_left(round % 2);
        for (url, loads) in pair {
            loads.push(load(&script, url, seconds())?);
        }
    }
    std::fs::remove_file(&script)?;
    ensure!(gateway.iter().chain(&axum).all(|load| load.rate > 0.0), "wrk got no answer");
    let ratio = Spread::of(gateway.iter().zip(&axum).map(|(one, other)| one.rate / other.rate));
    println!(
        "POST of a validated command, wrk -t1 -c{CALLERS}, {rounds} rounds of {} s each: median (min to max)",
        seconds()
    );
    println!("{}", line("purista-http", &gateway));
    println!("{}", line("bare axum", &axum));
    println!("ratio {:.2} ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max);
    Ok(())
}

fn main() -> Result<()> {
    let rounds = rounds_asked(7)?;
    let runtime = runtime()?;
    // With `--serve` both serve until they are stopped, for a profiler.
    let serves_only = std::env::args().any(|argument| argument == "--serve");
    runtime.block_on(async {
        let gateway = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let host = Host::builder()
            .service(user_service())
            .door(Gateway::listen(gateway.to_string()))
            .start()
            .await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let urls = [
            format!("http://{gateway}/api/v1/sign-up"),
            format!("http://{}/api/v1/sign-up", listener.local_addr()?),
        ];
        let routes = axum::Router::new()
            .route("/api/v1/sign-up", post(bare))
            .with_state(Arc::new(Accounts::default()));
        let asked = tokio::task::spawn_blocking(move || {
            if serves_only {
                println!("{}\n{}", urls[0], urls[1]);
                loop {
                    std::thread::park();
                }
            }
            measure(rounds, [&urls[0], &urls[1]])
        });
        tokio::select! {
            served = axum::serve(listener, routes) => served.context("axum ended")?,
            asked = asked => asked??,
        }
        host.stop().await;
        Ok(())
    })
}
