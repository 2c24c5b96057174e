//! Many want the same address at the same time, and nothing but the events says who has it.

use std::collections::{BTreeMap, HashSet};

use crate::server::{Folder, Server};

const CALLERS: usize = 64;
const ADDRESSES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_race_for_a_hundred_addresses_and_a_hundred_accounts_are_made() {
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let callers = (0..CALLERS).map(|caller| {
        let server = &server;
        async move {
            let mut connection = server.connect().await;
            let mut answers = Vec::new();
            for address in 0..ADDRESSES {
                // All want the same ones in the same order, in letters of either case.
                let letter = if caller % 2 == 0 { "u" } else { "U" };
                let email = format!("{letter}{address}@example.com");
                let answer = connection.sign_up(&email, &format!("Racer{address}")).await;
                answers.push((address, answer));
            }
            answers
        }
    });
    let answers: Vec<_> = futures_util::future::join_all(callers).await.into_iter().flatten().collect();
    let mut accounts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (address, answer) in &answers {
        if answer.status == 200 {
            accounts.entry(*address).or_default().push(answer.json()["userId"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(answer.status, 409, "{answer:?}");
        }
    }
    assert_eq!(answers.len(), CALLERS * ADDRESSES);
    assert_eq!(accounts.len(), ADDRESSES);
    assert!(accounts.values().all(|of_address| of_address.len() == 1), "{accounts:?}");
    let ids: HashSet<_> = accounts.values().flatten().collect();
    let hits = server.search_until("racer&limit=100", ADDRESSES).await;
    assert_eq!(hits.iter().map(|(user_id, _)| user_id).collect::<HashSet<_>>(), ids);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_want_one_address_one_has_it_and_when_he_gives_it_up_another_may() {
    const ROUNDS: usize = 20;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let mut connection = server.connect().await;
    let mut users = Vec::new();
    for user in 0..16 {
        let account = connection.sign_up(&format!("home{user}@example.com"), "Mover").await.good();
        users.push(account["userId"].as_str().unwrap().to_owned());
    }
    for _ in 0..ROUNDS {
        let wanting = users.iter().enumerate().map(|(number, user)| {
            let server = &server;
            async move {
                let mut connection = server.connect().await;
                if number % 4 == 3 {
                    // Some would rather make an account with it.
                    return (None, connection.sign_up("Wanted@example.com", "Mover").await);
                }
                (Some(user), connection.change_email(user, "wanted@example.com").await)
            }
        });
        let answers = futures_util::future::join_all(wanting).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, answer)| answer.status == 200);
        assert!(lost.iter().all(|(_, answer)| answer.status == 409), "{lost:?}");
        let [(user, answer)] = won.as_slice() else { panic!("{} have one address: {won:?}", won.len()) };
        let holder = user.map_or_else(|| answer.json()["userId"].as_str().unwrap().to_owned(), Clone::clone);
        let away = format!("{holder}@example.com");
        assert_eq!(connection.change_email(&holder, &away).await.good()["email"], away);
        let history = connection.get(&format!("/api/v1/users/{holder}/history?limit=100")).await.good();
        let newest = history["entries"].as_array().unwrap().last().unwrap();
        assert_eq!((&newest["event"], &newest["what"]["newEmail"]), (&"emailChanged".into(), &away.into()));
    }
    server.stop().await;
}
