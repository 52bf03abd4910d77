use super::*;
use proptest::prelude::*;
use tether_protocol::Reading;

const OK: Means<'static> = Means { local: Ok(()), cloud: Ok(()), link_down: false, pictures: Ok(()) };
const AUTO: Asked<'static> = Asked { route: RouteChoice::Auto, views: None, local_only: None };

fn name(text: &str) -> ViewName {
    ViewName::new(text).unwrap()
}

/// Views `v0`, `v1`, ...: (has something to send, is private).
fn world(views: &[(bool, bool)]) -> (ActionSpace, Vec<ViewContext>) {
    let context = |(i, &(ready, local_only)): (usize, &(bool, bool))| ViewContext {
        is_text: false,
        name: name(&format!("v{i}")),
        encoded_bytes: if ready { Reading::known(9, 0, "test") } else { Reading::unknown("no frame was pushed") },
        attached: false,
        local_only,
        association: None,
    };
    let views: Vec<ViewContext> = views.iter().enumerate().map(context).collect();
    (ActionSpace::new(views.iter().map(|view| view.name.clone()).collect()).unwrap(), views)
}

#[test]
fn with_everything_ready_all_actions_are_permitted() {
    let (space, views) = world(&[(true, false); 4]);
    assert_eq!(permitted(&space, &views, AUTO, OK).unwrap().len(), 17);
}

#[test]
fn what_has_nothing_to_send_is_not_sent() {
    let (space, views) = world(&[(true, false), (false, false), (true, true)]);
    let actions = permitted(&space, &views, AUTO, OK).unwrap();
    assert_eq!(actions, [Action::LOCAL, space.cloud(ViewSet(0)), space.cloud(ViewSet(1))]);
}

#[test]
fn views_asked_for_with_the_cloud_are_exact() {
    let (space, views) = world(&[(true, false), (true, false), (false, false), (true, true)]);
    let ask = |views: &[ViewName]| {
        let asked = Asked { route: RouteChoice::Cloud, views: Some(views), ..AUTO };
        permitted(&space, &world(&[(true, false), (true, false), (false, false), (true, true)]).1, asked, OK)
    };
    assert_eq!(ask(&[name("v1")]).unwrap(), [space.cloud(ViewSet(2))]);
    assert_eq!(ask(&[]).unwrap(), [space.cloud(ViewSet(0))]);
    for bad in ["v2", "v3"] {
        assert_eq!(ask(&[name(bad)]).unwrap_err().code(), "view_unavailable");
    }
    assert_eq!(ask(&[name("v9")]).unwrap_err().code(), "unknown_view");
    let auto = Asked { views: Some(&[name("v0")]), ..AUTO };
    assert_eq!(permitted(&space, &views, auto, OK).unwrap().len(), 3);
}

#[test]
fn a_dead_link_is_tried_only_if_nothing_else_can_answer() {
    let (space, views) = world(&[(true, false)]);
    let down = Means { link_down: true, ..OK };
    assert_eq!(permitted(&space, &views, AUTO, down).unwrap(), [Action::LOCAL]);
    let alone = Means { local: Err("no model"), ..down };
    assert_eq!(permitted(&space, &views, AUTO, alone).unwrap().len(), 2);
}

#[test]
fn nobody_says_why() {
    let (space, views) = world(&[]);
    let ask = |asked, means| permitted(&space, &views, asked, means).unwrap_err();
    let none = Means { local: Err("no model"), cloud: Err("no cloud"), link_down: false, pictures: Ok(()) };
    let error = ask(AUTO, none);
    assert_eq!(error.status, 503);
    assert!(error.object.message.contains("no model") && error.object.message.contains("no cloud"), "{error}");
    assert_eq!(ask(Asked { route: RouteChoice::Cloud, local_only: Some("why"), ..AUTO }, OK).status, 403);
    assert_eq!(ask(Asked { local_only: Some("why"), ..AUTO }, Means { local: Err("x"), ..OK }).status, 503);
    assert_eq!(
        ask(Asked { route: RouteChoice::Local, ..AUTO }, Means { local: Err("x"), ..OK }).code(),
        "local_unavailable"
    );
}

proptest! {
    /// Whatever is asked: no cloud action under `local_only`, and no private or empty view in any action.
    #[test]
    fn privacy_is_absolute(
        flags in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..=8),
        route in prop_oneof![Just(RouteChoice::Auto), Just(RouteChoice::Local), Just(RouteChoice::Cloud)],
        wanted in proptest::option::of(proptest::collection::vec(0usize..8, 0..4)),
        local_only in any::<bool>(),
        link_down in any::<bool>(),
        local in any::<bool>(),
    ) {
        let (space, views) = world(&flags);
        let wanted: Option<Vec<ViewName>> =
            wanted.map(|views| views.into_iter().map(|i| name(&format!("v{i}"))).collect());
        let asked = Asked { route, views: wanted.as_deref(), local_only: local_only.then_some("why") };
        let means = Means { local: if local { Ok(()) } else { Err("none") }, cloud: Ok(()), link_down, pictures: Ok(()) };
        let Ok(actions) = permitted(&space, &views, asked, means) else { return Ok(()) };
        prop_assert!(!actions.is_empty());
        for action in actions {
            if action.route() == Route::Cloud {
                prop_assert!(!local_only && route != RouteChoice::Local);
            } else {
                prop_assert!(local && route != RouteChoice::Cloud);
            }
            for view in space.sent(action).iter() {
                let (ready, private) = flags[view];
                prop_assert!(ready && !private);
                let name = &views[view].name;
                prop_assert!(wanted.as_ref().is_none_or(|wanted| wanted.contains(name)));
            }
        }
    }
}
