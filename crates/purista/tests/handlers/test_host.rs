//! The test host itself: real time for handlers that use sockets, principals and tenants, and any store.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use purista::testing::TestHost;
use purista::{Context, HandlerError, Service, command};
use purista_core::invoke_error::InvokeErrorKind;
use purista_events::recorded::Recorded;
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use purista_sqlite::tx::Tx;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::contracts::{Ask, Happened, TRY, Told, ask, told};

/// A server on a thread: replies to one connection after a while of real time, longer than paused time waits.
fn slow_server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(100)); // real time: the reply of another program
        // The handler may be gone.
        let _ = stream.write_all(b"from outside");
        let _ = stream.read(&mut [0; 1]);
    });
    address
}

/// Its command asks the server.
fn asking_outside(server: SocketAddr) -> Service {
    let ask = command(move |_: Context<()>, _: Ask| async move {
        let (mut stream, mut text) = (TcpStream::connect(server).await?, [0; 12]);
        stream.read_exact(&mut text).await?;
        Ok(told(&String::from_utf8(text.to_vec())?))
    });
    Service::builder(TRY, "Asks another program", ()).command(ask).build()
}

#[tokio::test]
async fn a_handler_that_uses_a_socket_is_tested_in_real_time() {
    let host = TestHost::builder().services([asking_outside(slow_server())]).real_time().start().await;
    assert_eq!(host.invoke(ask("x")).await.unwrap(), told("from outside"));

    // Paused time passes every time limit while the socket is waited for.
    let paused = TestHost::start([asking_outside(slow_server())]).await;
    let error = paused.invoke(ask("x")).await.unwrap_err();
    assert_eq!(error.kind(), InvokeErrorKind::Timeout);

    // Real time can be asked for after another host paused it.
    let host = TestHost::builder().services([asking_outside(slow_server())]).real_time().start().await;
    assert_eq!(host.invoke(ask("x")).await.unwrap(), told("from outside"));
}

#[tokio::test]
async fn a_call_has_a_principal_and_a_tenant() {
    let names = command(async |ctx: Context<()>, _: Ask| {
        Ok(told(&format!("{:?} of {:?}", ctx.principal(), ctx.tenant())))
    });
    let host = TestHost::start([Service::builder(TRY, "Tells who asks", ()).command(names).build()]).await;
    let output = host.call(ask("x")).principal("ada").tenant("acme").send().await.unwrap();
    assert_eq!(output, told(r#"Some("ada") of Some("acme")"#));
    assert_eq!(host.invoke(ask("x")).await.unwrap(), told("None of None"));
}

#[tokio::test]
async fn a_projection_into_sql_tables_is_tested_on_its_own_store() {
    let folder = std::env::temp_dir().join(format!("purista-test-host-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = SqliteStore::open(folder.join("app.db")).unwrap();
    let keys = store.projected(
        projection("keys", 1).set_up(|tx: &Tx| tx.create_table("keys", "key TEXT PRIMARY KEY")).on(
            |tx: &Tx, event: Recorded<Happened>| {
                tx.execute("INSERT INTO {keys} (key) VALUES (?1)", [event.body.key])?;
                Ok(())
            },
        ),
    );
    let happens = command(async |ctx: Context<()>, input: Ask| {
        ctx.emit(Happened { key: input.text, how: "x".to_owned() })?;
        Ok::<Told, HandlerError>(told("done"))
    })
    .emits::<Happened>();
    let host = TestHost::builder()
        .services([Service::builder(TRY, "Records", ()).command(happens).build()])
        .on_store(store.clone())
        .configure(|host| host.projection(keys))
        .start()
        .await;
    for key in ["a", "b"] {
        host.invoke(ask(key)).await.unwrap();
    }
    // `invoke` returned, so the read model is up to date.
    let sql = "SELECT group_concat(key) FROM keys";
    let found: String = host
        .store()
        .read_models()
        .read(move |tables| tables.query_row(sql, [], |row| row.get(0)))
        .await
        .unwrap();
    assert_eq!(found, "a,b");
    host.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}
