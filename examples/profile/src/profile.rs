//! Service `User`: two views, two decisions, and a read of the past. Nothing is kept but events.

use purista::{
    Context, Events as _, Facts, HandlerError, Replying, Service, View, command, decide_with, every, view,
};

use crate::contracts::{GetProfile, NewUserRegistered, Profile, ProfileUpdated, SignUp, USER, UpdateProfile};

/// How many events are read at most before the state of a user is kept as a snapshot.
const SNAPSHOT_EVERY: u64 = 100;

/// The service, ready for a host.
pub(crate) fn user_service() -> Service {
    Service::builder(USER, "Accounts and their names", ())
        .command(decide_with(same_address, sign_up).success_event())
        .command(decide_with(same_user, update_profile))
        .command(command(get_profile))
        .build()
}

/// Whether anybody has an account with this address.
fn is_taken(email: &str) -> View<bool> {
    view(false).tagged("email", email.to_lowercase()).on(|is_taken, _: NewUserRegistered| *is_taken = true)
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
}

/// A sign-up depends on what happened to its address, whoever's it is: no index of addresses is kept. Of two sign-ups at the
/// same time, one is decided again and sees the other. A second rule would be a second view, in a tuple with this one.
fn same_address(command: &SignUp) -> View<bool> {
    is_taken(&command.email)
}

fn sign_up(command: SignUp, is_taken: bool, facts: &Facts) -> Result<NewUserRegistered, HandlerError> {
    if is_taken {
        return Err(HandlerError::conflict("this e-mail address is taken"));
    }
    Ok(NewUserRegistered { user_id: facts.id.to_string(), email: command.email, name: command.name })
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
}
