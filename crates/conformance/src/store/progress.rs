//! Duties towards durable subscriptions: progress, what is parked, pauses, dead letters.

use std::sync::Arc;

use purista_events::batch::Batch;
use purista_events::store::PAGE_MAX;
use purista_events::store::StoreErrorKind::AlreadyDone;
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Parked, ParkedChange, Pause, Progress, ProgressChange, SubscriptionId,
    SubscriptionRecord,
};
use tokio::task::JoinSet;

use super::given::{self, at, done, event, subscription, up_to};
use super::stage::Stage;

async fn change(stage: &Stage, progress: Vec<ProgressChange>) {
    stage.commit(Batch { progress, ..given::batch() }).await;
}

async fn park(stage: &Stage, parked: Vec<ParkedChange>) {
    stage.commit(Batch { parked, ..given::batch() }).await;
}

async fn progress(stage: &Stage, id: &SubscriptionId) -> Progress {
    stage.record(id).await.expect("it is registered").progress
}

fn finished(low: u64, done: &[u64]) -> Progress {
    Progress { low: at(low), done: done.iter().copied().map(at).collect() }
}

/// A subscription that was never registered has no record; registering it at the start gives it one.
pub async fn a_subscription_is_registered_by_its_first_progress(stage: &mut Stage) {
    let [email, search, audit] = given::subscriptions();
    assert_eq!(stage.record(&email).await, None);
    assert_eq!(stage.store.subscriptions().await.expect("subscriptions are read"), []);
    change(stage, vec![up_to(&email, 0), up_to(&search, 7)]).await;
    assert_eq!(stage.record(&email).await, Some(SubscriptionRecord::default()));
    assert_eq!(progress(stage, &search).await, finished(7, &[]));
    assert_eq!(stage.record(&audit).await, None);
    stage.reopen().await;
    assert_eq!(stage.record(&email).await, Some(SubscriptionRecord::default()));
    let mut names = stage.store.subscriptions().await.expect("subscriptions are read");
    names.sort();
    assert_eq!(names, [email, search]);
}

/// Changes of progress commute: in whichever order they are committed, together or one by one, they end at the same.
pub async fn changes_of_progress_commute(stage: &mut Stage) {
    let id = subscription();
    let changes = [done(&id, 3), done(&id, 5), done(&id, 9), up_to(&id, 1), up_to(&id, 2)];
    let expected = finished(2, &[3, 5, 9]);
    // Each change is made first once, and last once.
    for turn in 0..changes.len() {
        let other = stage.another().await;
        for change_of_turn in changes.iter().cycle().skip(turn).take(changes.len()) {
            change(&other, vec![change_of_turn.clone()]).await;
        }
        assert_eq!(progress(&other, &id).await, expected, "from {turn}");
    }
    change(stage, changes.to_vec()).await;
    assert_eq!(progress(stage, &id).await, expected);
}

/// The low mark never goes back, and what lies at or below it is not kept one by one.
pub async fn the_low_mark_never_goes_back(stage: &mut Stage) {
    let id = subscription();
    change(stage, vec![done(&id, 3), done(&id, 5), done(&id, 8)]).await;
    assert_eq!(progress(stage, &id).await, finished(0, &[3, 5, 8]));
    change(stage, vec![up_to(&id, 5)]).await;
    assert_eq!(progress(stage, &id).await, finished(5, &[8]));
    change(stage, vec![up_to(&id, 2)]).await;
    assert_eq!(progress(stage, &id).await, finished(5, &[8]));
    // A position and the mark that takes it in may come in one change.
    change(stage, vec![ProgressChange { up_to: Some(at(6)), ..done(&id, 6) }]).await;
    assert_eq!(progress(stage, &id).await, finished(6, &[8]));
    stage.reopen().await;
    assert_eq!(progress(stage, &id).await, finished(6, &[8]));
    change(stage, vec![up_to(&id, 1_000_000_000_000)]).await;
    assert_eq!(progress(stage, &id).await, finished(1_000_000_000_000, &[]));
}

/// A position that is finished already, by itself or by the low mark, refuses its batch, and nothing of it is written.
pub async fn a_finished_position_is_not_finished_again(stage: &mut Stage) {
    let [email, search, _] = given::subscriptions();
    change(stage, vec![up_to(&email, 4), done(&email, 7)]).await;
    let clock = stage.clock.clone();
    let batch = |progress| Batch { progress, ..given::everything(&clock, 1) };
    for again in [1, 4, 7] {
        stage.refuse(batch(vec![done(&email, again)]), AlreadyDone).await;
        stage.refuse(batch(vec![done(&email, 6), done(&email, again)]), AlreadyDone).await;
    }
    stage.refuse(batch(vec![done(&email, 6), done(&email, 6)]), AlreadyDone).await;
    stage.reopen().await;
    stage.refuse(batch(vec![done(&email, 7)]), AlreadyDone).await;
    change(stage, vec![done(&email, 6), done(&search, 4), done(&search, 7)]).await;
    assert_eq!(progress(stage, &email).await, finished(4, &[6, 7]));
    assert_eq!(progress(stage, &search).await, finished(0, &[4, 7]));
}

/// Handlers that end at the same time lose nothing of one another; of those that finish one position, one does it.
pub async fn many_positions_are_finished_at_once(stage: &mut Stage) {
    let mut handlers = JoinSet::new();
    for number in 1..=32 {
        for _ in 0..2 {
            let store = Arc::clone(&stage.store);
            let progress = vec![done(&subscription(), number)];
            let batch = Batch { progress, ..given::appends(vec![event("handled", &[])]) };
            handlers.spawn(async move { store.commit(batch).await.map_err(|error| error.kind()) });
        }
    }
    let ends = handlers.join_all().await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 32);
    assert!(ends.into_iter().filter_map(Result::err).all(|kind| kind == AlreadyDone));
    assert_eq!(stage.events().await.len(), 32);
    assert_eq!(progress(stage, &subscription()).await, finished(0, &(1..=32).collect::<Vec<_>>()));
}

/// What is parked is kept as it was given, in order of position, until it is forgotten; keeping it again replaces it.
pub async fn what_is_parked_is_kept_until_it_is_forgotten(stage: &mut Stage) {
    let [email, search, _] = given::subscriptions();
    let due = given::parked(&stage.clock, &email, 9);
    let waiting =
        Parked { key: None, due: None, history: Vec::new(), ..given::parked(&stage.clock, &email, 4) };
    let of_search = given::parked(&stage.clock, &search, 9);
    let kept = |parked: &Parked| ParkedChange::Keep(parked.clone());
    park(stage, vec![kept(&due), kept(&waiting), kept(&of_search)]).await;
    let parked_for =
        async |stage: &Stage, id: &SubscriptionId| stage.record(id).await.map(|record| record.parked);
    assert_eq!(parked_for(stage, &email).await, Some(vec![waiting.clone(), due.clone()]));

    let again = Parked { attempts: 3, due: None, history: given::failures(&stage.clock, 20), ..due };
    park(stage, vec![kept(&again)]).await;
    stage.reopen().await;
    assert_eq!(parked_for(stage, &email).await, Some(vec![waiting.clone(), again.clone()]));
    assert_eq!(parked_for(stage, &search).await, Some(vec![of_search.clone()]));

    let forget = |position| ParkedChange::Forget(email.clone(), at(position));
    park(stage, vec![forget(4), forget(5)]).await;
    assert_eq!(parked_for(stage, &email).await, Some(vec![again.clone()]));
    assert_eq!(parked_for(stage, &search).await, Some(vec![of_search]));
    // In one batch, changes are made in their order.
    park(stage, vec![forget(9), kept(&again), kept(&waiting), forget(4)]).await;
    assert_eq!(parked_for(stage, &email).await, Some(vec![again]));
    park(stage, vec![forget(9)]).await;
    stage.reopen().await;
    assert_eq!(parked_for(stage, &email).await.unwrap_or_default(), []);
}

/// Parking an event leaves progress to its subscription, and progress leaves what is parked.
pub async fn parked_events_are_kept_apart_from_progress(stage: &mut Stage) {
    let id = subscription();
    let parked = given::parked(&stage.clock, &id, 3);
    let both = Batch {
        progress: vec![done(&id, 3)],
        parked: vec![ParkedChange::Keep(parked.clone())],
        ..given::batch()
    };
    stage.commit(both).await;
    change(stage, vec![up_to(&id, 10)]).await;
    let record = stage.record(&id).await.expect("it is registered");
    assert_eq!((record.progress, record.parked), (finished(10, &[]), vec![parked]));
    park(stage, vec![ParkedChange::Forget(id.clone(), at(3))]).await;
    assert_eq!(progress(stage, &id).await, finished(10, &[]));
}

/// A pause is kept until it ends, also when the store is opened again; a second one replaces the first.
pub async fn a_pause_is_kept_until_it_ends(stage: &mut Stage) {
    let [email, search, _] = given::subscriptions();
    change(stage, vec![up_to(&email, 0), up_to(&search, 0)]).await;
    let pause_of =
        async |stage: &Stage, id: &SubscriptionId| stage.record(id).await.and_then(|record| record.pause);
    let pauses = |pause: Option<Pause>| Batch { pauses: vec![(email.clone(), pause)], ..given::batch() };
    let first = given::pause(&stage.clock);
    let second = Pause { reason: "größer ✗\nzwei".to_owned(), ..first.clone() };
    for pause in [None, Some(first), Some(second.clone())] {
        stage.commit(pauses(pause.clone())).await;
        assert_eq!(pause_of(stage, &email).await, pause);
    }
    let ends = pauses(None);
    stage.reopen().await;
    assert_eq!(pause_of(stage, &email).await, Some(second));
    assert_eq!(pause_of(stage, &search).await, None);
    stage.commit(ends).await;
    assert_eq!(pause_of(stage, &email).await, None);
    stage.reopen().await;
    assert_eq!(pause_of(stage, &email).await, None);
}

/// Dead letters are kept as they were given, with their history, oldest first, and found by subscription.
pub async fn dead_letters_are_kept_with_their_history(stage: &mut Stage) {
    let [email, search, audit] = given::subscriptions();
    let of_event = DeadLetter {
        history: given::failures(&stage.clock, 20),
        ..given::dead_letter(&stage.clock, &email, 3)
    };
    let raw = [&b"\0\xff not JSON "[..], "größer".as_bytes()].concat();
    let of_message = DeadLetter {
        id: given::message(1),
        source: DeadLetterSource::Message(raw.into()),
        history: Vec::new(),
        ..given::dead_letter(&stage.clock, &search, 0)
    };
    let later = given::dead_letter(&stage.clock, &email, 1);
    for letter in [&of_event, &of_message, &later] {
        stage.commit(Batch { dead_letters: vec![letter.clone()], ..given::batch() }).await;
    }
    for _ in 0..2 {
        let all = [of_event.clone(), of_message.clone(), later.clone()];
        assert_eq!(stage.dead_letters(None).await, all);
        assert_eq!(stage.dead_letters(Some(&email)).await, [of_event.clone(), later.clone()]);
        assert_eq!(stage.dead_letters(Some(&search)).await, std::slice::from_ref(&of_message));
        assert_eq!(stage.dead_letters(Some(&audit)).await, []);
        let names = stage.store.subscriptions().await.expect("subscriptions are read");
        assert!(names.contains(&email) && names.contains(&search) && !names.contains(&audit));
        stage.reopen().await;
    }
}

/// No more dead letters are read than were asked for, nor than a page may hold: the oldest ones.
pub async fn dead_letters_are_read_within_a_limit(stage: &mut Stage) {
    let [email, search, _] = given::subscriptions();
    let letters: Vec<DeadLetter> = (0..1_200)
        .map(|number| {
            let of = if number % 2 == 0 { &email } else { &search };
            DeadLetter { history: Vec::new(), ..given::dead_letter(&stage.clock, of, number) }
        })
        .collect();
    stage.commit(Batch { dead_letters: letters.clone(), ..given::batch() }).await;
    for (limit, found) in [(0, 0), (1, 1), (1_000, 1_000), (usize::MAX, PAGE_MAX)] {
        let read = stage.store.dead_letters(None, limit).await.expect("dead letters are read");
        assert_eq!(read.as_slice(), letters.get(..found).unwrap_or_default());
    }
    let read = stage.store.dead_letters(Some(&search), 2).await.expect("dead letters are read");
    assert_eq!(
        read.iter().collect::<Vec<_>>(),
        letters.iter().skip(1).step_by(2).take(2).collect::<Vec<_>>()
    );
}
