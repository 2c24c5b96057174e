//! Service `User`: two views, three decisions, and a read of the past. Nothing is kept but events.

use purista::{
    Context, Events as _, Facts, HandlerError, Replying, Service, View, command, decide, decide_with, every,
    view,
};

use crate::contracts::{
    ChangeEmail, EmailChanged, GetProfile, NewUserRegistered, Profile, ProfileUpdated, SignUp, USER,
    UpdateProfile,
};

/// How many events are read at most before the state of a user is kept as a snapshot.
const SNAPSHOT_EVERY: u64 = 100;

/// The service, ready for a host.
pub(crate) fn user_service() -> Service {
    Service::builder(USER, "Accounts and their names", ())
        .command(decide_with(same_address, sign_up).success_event())
        .command(decide_with(same_user, update_profile))
        .command(decide(user_and_address, change_email))
        .command(command(get_profile))
        .build()
}

/// Who has this address, if anybody has: whoever took it last, until he takes another one.
fn holder(email: &str) -> View<Option<String>> {
    let address = email.to_lowercase();
    view(None)
        .tagged("email", &address)
        .on(|holder, event: NewUserRegistered| *holder = Some(event.user_id))
        .on(move |holder, event: EmailChanged| {
            *holder = (event.new_email.to_lowercase() == address).then_some(event.user_id);
        })
}

/// Who this user is; nothing before he has signed up.
fn profile(user_id: &str) -> View<Option<Profile>> {
    view(None)
        .tagged("user", user_id)
        .snapshot("profile", 1, every(SNAPSHOT_EVERY))
        .on(|profile: &mut Option<Profile>, event: NewUserRegistered| {
            let NewUserRegistered { user_id, email, name } = event;
            *profile = Some(Profile { user_id, email, name, renamed_at: None });
        })
        .on(|profile, event: ProfileUpdated| {
            if let Some(profile) = profile {
                (profile.name, profile.renamed_at) = (event.new_name, Some(event.at));
            }
        })
        .on(|profile, event: EmailChanged| {
            if let Some(profile) = profile {
                profile.email = event.new_email;
            }
        })
}

/// A sign-up depends on what happened to its address, whoever's it is: no index of addresses is kept. Of two sign-ups at the
/// same time, one is decided again and sees the other.
fn same_address(command: &SignUp) -> View<Option<String>> {
    holder(&command.email)
}

#[expect(clippy::needless_pass_by_value, reason = "a decision is given the state")]
fn sign_up(
    command: SignUp,
    holder: Option<String>,
    facts: &Facts,
) -> Result<NewUserRegistered, HandlerError> {
    if holder.is_some() {
        return Err(address_taken());
    }
    Ok(NewUserRegistered { user_id: facts.id.to_string(), email: command.email, name: command.name })
}

/// Two rules are a tuple of two views: who the user is, and who has the address that he wants. Whatever is recorded of either
/// meanwhile has it decided again.
fn user_and_address(command: &ChangeEmail) -> (View<Option<Profile>>, View<Option<String>>) {
    (profile(&command.user_id), holder(&command.email))
}

fn change_email(
    command: ChangeEmail,
    (profile, holder): (Option<Profile>, Option<String>),
) -> Result<Replying<Option<EmailChanged>, Profile>, HandlerError> {
    let Some(mut profile) = profile else { return Err(no_such_user()) };
    if holder.is_some_and(|holder| holder != command.user_id) {
        return Err(address_taken());
    }
    if profile.email == command.email {
        return Ok(None.replying(profile));
    }
    let old_email = std::mem::replace(&mut profile.email, command.email.clone());
    let changed = EmailChanged { user_id: command.user_id, old_email, new_email: command.email };
    Ok(Some(changed).replying(profile))
}

fn same_user(command: &UpdateProfile) -> View<Option<Profile>> {
    profile(&command.user_id)
}

fn update_profile(
    command: UpdateProfile,
    profile: Option<Profile>,
    facts: &Facts,
) -> Result<Replying<Option<ProfileUpdated>, Profile>, HandlerError> {
    let Some(mut profile) = profile else { return Err(no_such_user()) };
    if profile.name == command.name {
        return Ok(None.replying(profile));
    }
    let old_name = std::mem::replace(&mut profile.name, command.name.clone());
    profile.renamed_at = Some(facts.now);
    let updated =
        ProfileUpdated { user_id: command.user_id, old_name, new_name: command.name, at: facts.now };
    Ok(Some(updated).replying(profile))
}

async fn get_profile(ctx: Context<()>, question: GetProfile) -> Result<Profile, HandlerError> {
    let read = ctx.read(profile(&question.user_id));
    let Some(time) = question.as_of else { return read.await?.ok_or_else(no_such_user) };
    let then = read.as_of(time).await?;
    then.ok_or_else(|| HandlerError::not_found(format!("there was no such user at {time}")))
}

fn address_taken() -> HandlerError {
    HandlerError::conflict("this e-mail address is taken")
}

pub(crate) fn no_such_user() -> HandlerError {
    HandlerError::not_found("there is no such user")
}

#[cfg(test)]
mod tests {
    use purista::testing::{TEST_BEGINS, given};
    use purista_core::id::Id;

    use super::*;

    fn facts() -> Facts {
        Facts::new(TEST_BEGINS, Id::from_random(7))
    }

    fn to_sign_up(email: &str) -> SignUp {
        SignUp { email: email.to_owned(), name: "Ada".to_owned() }
    }

    fn registered(user_id: &str, email: &str) -> NewUserRegistered {
        NewUserRegistered { user_id: user_id.to_owned(), email: email.to_owned(), name: "Ada".to_owned() }
    }

    fn to_rename(user_id: &str, name: &str) -> UpdateProfile {
        UpdateProfile { user_id: user_id.to_owned(), name: name.to_owned() }
    }

    fn renamed(user_id: &str, old_name: &str, new_name: &str) -> ProfileUpdated {
        let (old_name, new_name) = (old_name.to_owned(), new_name.to_owned());
        ProfileUpdated { user_id: user_id.to_owned(), old_name, new_name, at: facts().now }
    }

    #[test]
    fn a_new_address_is_registered_as_it_was_written_under_a_new_id() {
        let asked = given().event(registered("1", "bob@example.com")).at(facts());
        let then = asked.when_with(to_sign_up("Ada@Example.com"), same_address, sign_up);
        then.then(registered(&facts().id.to_string(), "Ada@Example.com"));
    }

    #[test]
    fn an_address_is_taken_in_any_case_and_also_after_a_rename() {
        for email in ["ada@example.com", "ADA@example.COM"] {
            let asked = given().event((registered("1", "Ada@Example.com"), renamed("1", "Ada", "Countess")));
            let refused = asked.when_with(to_sign_up(email), same_address, sign_up).refused(409);
            assert_eq!(refused.refusal().public_message(), "this e-mail address is taken");
        }
    }

    #[test]
    fn a_rename_records_the_old_name_and_the_new_one_and_when() {
        let asked = given().event((registered("1", "a@x.example"), renamed("1", "Ada", "Bea"))).at(facts());
        let then = asked.when_with(to_rename("1", "Cleo"), same_user, update_profile);
        let then = then.then(renamed("1", "Bea", "Cleo"));
        let profile = then.reply();
        assert_eq!((profile.name.as_str(), profile.email.as_str()), ("Cleo", "a@x.example"));
        assert_eq!(profile.renamed_at, Some(facts().now));
    }

    #[test]
    fn the_name_that_he_has_is_answered_and_not_recorded() {
        let asked = given().event(registered("1", "a@x.example"));
        let then = asked.when_with(to_rename("1", "Ada"), same_user, update_profile).then(());
        assert_eq!((then.reply().name.as_str(), then.reply().renamed_at), ("Ada", None));
    }

    #[test]
    fn nobody_is_renamed_who_has_no_account() {
        let asked = given().event(registered("1", "a@x.example"));
        asked.when_with(to_rename("2", "Bea"), same_user, update_profile).refused(404);
    }

    fn to_change(user_id: &str, email: &str) -> ChangeEmail {
        ChangeEmail { user_id: user_id.to_owned(), email: email.to_owned() }
    }

    fn changed(user_id: &str, old_email: &str, new_email: &str) -> EmailChanged {
        let [user_id, old_email, new_email] = [user_id, old_email, new_email].map(str::to_owned);
        EmailChanged { user_id, old_email, new_email }
    }

    #[test]
    fn a_user_takes_an_address_that_nobody_has_and_gives_up_his_own() {
        let asked = given().event(registered("1", "a@x.example"));
        let then = asked.when(to_change("1", "New@x.example"), user_and_address, change_email);
        let then = then.then(changed("1", "a@x.example", "New@x.example"));
        assert_eq!(then.reply().email, "New@x.example");
        let free = (registered("1", "a@x.example"), changed("1", "a@x.example", "new@x.example"));
        let asked = given().event(free.clone()).event(registered("2", "b@x.example"));
        asked.when(to_change("2", "A@x.example"), user_and_address, change_email).then(changed(
            "2",
            "b@x.example",
            "A@x.example",
        ));
        let asked = given().event(free).at(facts());
        let signed_up = registered(&facts().id.to_string(), "a@x.example");
        asked.when_with(to_sign_up("a@x.example"), same_address, sign_up).then(signed_up);
    }

    #[test]
    fn an_address_that_somebody_else_has_is_taken_in_any_case() {
        let both = (registered("1", "a@x.example"), registered("2", "b@x.example"));
        let asked = || given().event(both.clone()).event(changed("2", "b@x.example", "C@x.example"));
        asked().when(to_change("1", "c@X.example"), user_and_address, change_email).refused(409);
        asked().when(to_change("3", "d@x.example"), user_and_address, change_email).refused(404);
        asked().when_with(to_sign_up("c@x.example"), same_address, sign_up).refused(409);
    }

    #[test]
    fn the_address_that_he_has_is_not_recorded_and_its_letters_may_change() {
        let asked = || given().event(registered("1", "a@x.example"));
        asked().when(to_change("1", "a@x.example"), user_and_address, change_email).then(());
        let asked = asked().when(to_change("1", "A@x.example"), user_and_address, change_email);
        asked.then(changed("1", "a@x.example", "A@x.example"));
        let again = (registered("1", "a@x.example"), changed("1", "a@x.example", "A@x.example"));
        given().event(again).when_with(to_sign_up("a@x.example"), same_address, sign_up).refused(409);
    }
}
