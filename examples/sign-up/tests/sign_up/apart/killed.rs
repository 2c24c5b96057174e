//! kill -9 of one of the processes: what it had in hand, and what came while it was away.

use tokio::net::TcpListener;

use crate::apart::{Apart, Broker, Folders, Kind, part};
use crate::server::Folder;
use crate::{beside_others, mails, soon};

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn on_nats_a_mail_that_was_being_written_is_written_by_another_process() {
    killed_in_the_handler(Kind::Nats).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn on_rabbitmq_a_mail_that_was_being_written_is_written_by_another_process() {
    killed_in_the_handler(Kind::RabbitMq).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn on_mqtt_a_mail_that_was_being_written_is_written_when_its_process_is_back() {
    killed_in_the_handler(Kind::Mosquitto).await;
}

/// The mail server is mute, so that its process is killed within the handler, between two bytes of a mail.
async fn killed_in_the_handler(kind: Kind) {
    let _cores = beside_others().await;
    for store in [&[][..], &["--no-store"]] {
        let (broker, folders) = (Broker::start(kind).await, Folders::new());
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let smtp = format!("smtp://{}", mute.local_addr().unwrap());
        let slow = [&["--smtp", &smtp], store].concat();
        let mut apart = Apart::start(&broker, &folders, store).await;
        apart.email.stop().await;
        apart.email = part("email", &broker.url(), &folders.email, &slow).await;
        let user_id = apart.http.sign_up("ada@example.com", "Ada").await.user_id();
        let _in_hand = soon("a mail on its way", mute.accept()).await.unwrap();
        apart.email.kill().await;
        // Another process, with a folder of its own; MQTT knows it by the name of the one that is gone.
        let another = Folder::new();
        apart.email = part("email", &broker.url(), &another, store).await;
        let mails = soon("the mail", mails::until_written(&another, &["ada@example.com"])).await;
        assert!(mails.len() == 1 && mails[0].body.contains(&user_id), "{mails:?}");
        apart.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn on_nats_mails_are_written_that_fell_due_while_nobody_wrote_any() {
    away(Kind::Nats).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn on_rabbitmq_mails_are_written_that_fell_due_while_nobody_wrote_any() {
    away(Kind::RabbitMq).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn on_mqtt_mails_are_written_that_fell_due_while_nobody_wrote_any() {
    away(Kind::Mosquitto).await;
}

/// The process that writes mails is killed, and then the broker, which comes back alone. People sign up, and each time the
/// process of their accounts is killed as soon as the last of them was answered.
async fn away(kind: Kind) {
    let _cores = beside_others().await;
    for store in [&[][..], &["--no-store"]] {
        let (mut broker, folders) = (Broker::start(kind).await, Folders::new());
        let Apart { http, mut user, mut email } = Apart::start(&broker, &folders, store).await;
        email.kill().await;
        broker.kill();
        broker.restart().await;
        let mut to = Vec::new();
        for round in 0..3 {
            for nth in 0..10 {
                let address = format!("r{round}n{nth}@example.com");
                http.sign_up(&address, "Ada").await.user_id();
                to.push(address);
            }
            user.kill().await;
            user = part("user", &broker.url(), &folders.user, store).await;
        }
        email = part("email", &broker.url(), &folders.email, store).await;
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let mails = soon("all mails", mails::until_written(&folders.email, &to)).await;
        assert_eq!(mails.len(), to.len(), "one each, known by the ids of their events");
        Apart { http, user, email }.stop().await;
    }
}
