//! What must not leave the device does not: checked against a cloud that records every byte it gets.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tether::testing::{Behaviour, Reply, Upstream, World};

struct Scene {
    upstream: Upstream,
    world: World,
    _folder: TempDir,
}

async fn scene(extra: &str) -> Scene {
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), &format!("{extra}\n{}", upstream.config())).await.unwrap();
    Scene { upstream, world, _folder: folder }
}

impl Scene {
    async fn ask(&self, text: &str, tether: Value) -> Reply {
        let reply = self.world.ask(text, json!({"max_tokens": 4, "tether": tether})).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }
}

fn answer(reply: &Reply) -> String {
    reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn jpeg() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(64, 48, image::Rgb([200, 30, 30]))
        .write_to(&mut bytes, image::ImageFormat::Jpeg)
        .unwrap();
    bytes.into_inner()
}

fn picture(view: &str) -> Value {
    let url = format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg()));
    json!({"type": "image_url", "image_url": {"url": url}, "tether": {"view": view}})
}

#[tokio::test]
async fn a_local_only_turn_never_travels_later_as_history() {
    let scene = scene("").await;
    let open = json!({"session": "s", "route": "cloud"});
    scene.ask("first open question", open.clone()).await;
    let hidden = scene.ask("the SECRET word", json!({"session": "s", "local_only": true})).await;
    assert_eq!(hidden.json()["tether"]["reason"], "local_only");
    assert_eq!(hidden.json()["tether"]["uplink_bytes"], 0);
    let last = scene.ask("last open question", open).await;
    assert_eq!(answer(&last), "from the cloud");

    let seen = scene.upstream.bodies();
    assert_eq!(seen.len(), 2);
    let messages = seen[1]["messages"].to_string();
    assert!(messages.contains("first open question") && messages.contains("last open question"), "{messages}");
    let everything = scene.upstream.everything();
    assert!(!everything.contains("SECRET"));
    assert!(!everything.contains(&answer(&hidden)), "the answer of a local_only turn is private too");

    // The local model, which stays on the device, remembers all of it.
    let recalled = scene.world.daemon.store().memory(
        tether_protocol::SessionId::new("s").unwrap(),
        scene.world.daemon.live().settings.sessions,
        0,
    );
    let kept: Vec<bool> = recalled.await.unwrap().messages.iter().map(|message| message.local_only).collect();
    assert_eq!(kept, [false, false, true, true, false, false]);
}

#[tokio::test]
async fn local_only_holds_across_a_restart() {
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), &upstream.config()).await.unwrap();
    let hidden = json!({"max_tokens": 2, "tether": {"session": "s", "local_only": true}});
    assert_eq!(world.ask("the SECRET word", hidden).await.unwrap().status, 200);
    world.stop().await.unwrap();
    let world = World::start(folder.path(), &upstream.config()).await.unwrap();
    let open = json!({"tether": {"session": "s", "route": "cloud"}});
    assert_eq!(world.ask("what was it?", open).await.unwrap().status, 200);
    assert!(upstream.everything().contains("what was it?"));
    assert!(!upstream.everything().contains("SECRET"));
}

#[tokio::test]
async fn a_daemon_that_is_local_only_refuses_the_cloud() {
    let scene = scene("local_only = true").await;
    assert_eq!(scene.ask("hello", json!({})).await.json()["tether"]["route"], "local");
    let reply = scene.world.ask("hello", json!({"tether": {"route": "cloud"}})).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (403, "local_only"));
    assert!(scene.upstream.bodies().is_empty());
}

const PRIVATE_VIEWS: &str = "[[views]]\nname = \"front\"\n[[views]]\nname = \"bedroom\"\nlocal_only = true\n
    [[views]]\nname = \"sensors\"\nkind = \"sensors\"\nlocal_only = true\n";

#[tokio::test]
async fn a_private_view_stays_whatever_the_policy_wants() {
    let scene = scene(&format!("{PRIVATE_VIEWS}[policy]\nname = \"always-cloud\"\n")).await;
    for view in ["front", "bedroom"] {
        let pushed = scene.world.send("PUT", &format!("/v1/cameras/{view}"), jpeg()).await.unwrap();
        assert_eq!(pushed.status, 200, "{}", pushed.text());
    }
    scene.world.send("PUT", "/v1/sensors/pulse", "\"SECRET 72\"").await.unwrap();
    let reply = scene.ask("what do you see?", json!({})).await.json();
    assert_eq!((&reply["tether"]["route"], &reply["tether"]["views"]), (&json!("cloud"), &json!(["front"])));
    let sent = &scene.upstream.bodies()[0];
    assert_eq!(sent.to_string().matches("data:image/jpeg").count(), 1);
    assert!(!sent.to_string().contains("SECRET") && !sent.to_string().contains("bedroom"));
    let asked = json!({"tether": {"route": "cloud", "views": ["bedroom"]}});
    assert_eq!(scene.world.ask("look", asked).await.unwrap().code(), "view_unavailable");
}

#[tokio::test]
async fn an_image_of_a_private_camera_keeps_its_whole_turn_on_the_device() {
    let scene = scene(PRIVATE_VIEWS).await;
    let content = json!([{"type": "text", "text": "who is SLEEPING there?"}, picture("bedroom")]);
    let extra = json!({"max_tokens": 4, "messages": [{"role": "user", "content": content}],
        "tether": {"session": "s"}});
    let reply = scene.world.ask("", extra).await.unwrap().json();
    assert_eq!((&reply["tether"]["route"], &reply["tether"]["reason"]), (&json!("local"), &json!("local_only")));
    scene.ask("an open question", json!({"session": "s", "route": "cloud"})).await;
    assert!(!scene.upstream.everything().contains("SLEEPING"));
}

#[tokio::test]
async fn readings_of_a_request_are_forgotten_with_it() {
    let scene = scene("").await;
    let hidden = json!({"session": "s", "local_only": true, "sensors": {"pulse": "SECRET 72"}});
    assert_eq!(scene.ask("how am I?", hidden).await.json()["tether"]["reason"], "local_only");
    assert!(scene.world.send("GET", "/v1/status", "").await.unwrap().json()["sensors"].as_array().unwrap().is_empty());

    scene.world.send("PUT", "/v1/sensors/arm", "1").await.unwrap();
    let open = json!({"session": "s", "route": "cloud", "views": ["sensors"], "sensors": {"grip": 41, "arm": 43}});
    let sent = scene.ask("and the gripper?", open).await.json();
    assert_eq!(sent["tether"]["views"], json!(["sensors"]));
    let everything = scene.upstream.everything();
    assert!(everything.contains("41") && everything.contains("43"), "{everything}");
    assert!(!everything.contains("SECRET"));

    scene.ask("again?", json!({"route": "cloud", "views": ["sensors"]})).await;
    let last = scene.upstream.bodies().pop().unwrap().to_string();
    assert!(last.contains("arm") && !last.contains("grip"), "a pushed reading stays, the request's does not: {last}");
}

#[tokio::test]
async fn a_reading_of_a_private_sensor_view_keeps_its_turn_on_the_device() {
    let scene = scene(&format!("{PRIVATE_VIEWS}[policy]\nname = \"always-cloud\"\n")).await;
    let reply = scene.ask("how is my HEART?", json!({"session": "s", "sensors": {"pulse": 72}})).await.json();
    assert_eq!(reply["tether"]["reason"], "local_only");
    scene.ask("an open question", json!({"session": "s", "route": "cloud"})).await;
    assert!(!scene.upstream.everything().contains("HEART"));
}

#[tokio::test]
async fn an_answer_made_from_private_sensors_does_not_travel_later() {
    let scene = scene(PRIVATE_VIEWS).await;
    scene.world.send("PUT", "/v1/sensors/pulse", "72").await.unwrap();
    let local = scene.ask("how is my HEART?", json!({"session": "s", "route": "local"})).await;
    assert_eq!(local.json()["tether"]["reason"], "asked");
    scene.ask("an open question", json!({"session": "s", "route": "cloud"})).await;
    assert!(!scene.upstream.everything().contains("HEART"));
}

/// Which messages of a session may never travel.
async fn private(world: &World, session: &str) -> Vec<bool> {
    let id = tether_protocol::SessionId::new(session).unwrap();
    let memory = world.daemon.store().memory(id, world.daemon.live().settings.sessions, 0).await.unwrap();
    memory.messages.iter().map(|message| message.local_only).collect()
}

#[tokio::test]
async fn an_answer_that_saw_private_history_is_private_as_well_and_so_on() {
    let scene = scene("").await;
    let local = json!({"session": "s", "route": "local"});
    scene.ask("remember the word ZANZIBAR", json!({"session": "s", "local_only": true})).await;
    for text in ["REPEAT my last message", "and once MORE"] {
        let reply = scene.ask(text, local.clone()).await.json();
        assert_eq!(reply["tether"]["reason"], "asked", "an ordinary turn");
    }
    let open = json!({"session": "s", "route": "cloud"});
    scene.ask("now something else", open.clone()).await;
    let seen = scene.upstream.bodies()[0]["messages"].clone();
    assert_eq!(seen.as_array().unwrap().iter().filter(|message| message["role"] != "system").count(), 1, "{seen}");

    // The cloud saw nothing of it, so what it says may travel; what the device says next to all of it may not.
    scene.ask("and then?", local).await;
    scene.ask("at last", open).await;
    let everything = scene.upstream.everything();
    for word in ["ZANZIBAR", "REPEAT", "MORE", "and then?"] {
        assert!(!everything.contains(word), "{word}");
    }
    let messages = scene.upstream.bodies()[1]["messages"].to_string();
    assert!(messages.contains("now something else") && messages.contains("from the cloud"), "{messages}");
    let hidden = [true, true, true, true, true, true, false, false, true, true, false, false];
    assert_eq!(private(&scene.world, "s").await, hidden);
}

#[tokio::test]
async fn a_cloud_that_fails_hands_a_private_dialogue_to_the_device_and_does_not_get_its_answer() {
    let upstream = Upstream::start(Behaviour::Fail).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = "[policy]\nname = \"always-cloud\"\n";
    let world = World::start(folder.path(), &format!("{policy}{}", upstream.config())).await.unwrap();
    let hidden = json!({"max_tokens": 2, "tether": {"session": "s", "local_only": true}});
    world.ask("the SECRET word", hidden).await.unwrap();
    let reply = world.ask("go on", json!({"max_tokens": 2, "tether": {"session": "s"}})).await.unwrap().json();
    assert_eq!((&reply["tether"]["route"], &reply["tether"]["reason"]), (&json!("local"), &json!("cloud_failed")));
    assert_eq!(private(&world, "s").await, [true; 4]);
}

#[tokio::test]
async fn a_local_prompt_that_tells_of_a_private_picture_makes_its_turn_private() {
    let scene = scene(PRIVATE_VIEWS).await;
    let local = json!({"session": "s", "route": "local"});
    scene.world.send("PUT", "/v1/cameras/front", jpeg()).await.unwrap();
    scene.ask("one", local.clone()).await;
    scene.world.send("PUT", "/v1/cameras/bedroom", jpeg()).await.unwrap();
    scene.ask("two", local).await;
    assert_eq!(private(&scene.world, "s").await, [false, false, true, true]);
}

/// A dialogue in one request, whose first message shows these images.
fn told(images: &[Value]) -> Value {
    let mut content = vec![json!({"type": "text", "text": "who is SLEEPING there?"})];
    content.extend_from_slice(images);
    json!([{"role": "user", "content": content}, {"role": "assistant", "content": "ALICE is"},
        {"role": "user", "content": "tell a joke"}])
}

#[tokio::test]
async fn an_earlier_message_that_shows_a_private_camera_keeps_the_whole_request_on_the_device() {
    let scene = scene(&format!("{PRIVATE_VIEWS}[policy]\nname = \"always-cloud\"\n")).await;
    let unnamed = || {
        let mut image = picture("front");
        image.as_object_mut().unwrap().remove("tether");
        image
    };
    // Two nameless ones: there is one camera that may travel, so the other one was the bedroom's.
    for (images, why) in [(vec![picture("bedroom")], "bedroom"), (vec![unnamed(), unnamed()], "more images")] {
        let messages = told(&images);
        let asked = json!({"max_tokens": 4, "messages": messages, "tether": {"route": "cloud"}});
        let refused = scene.world.ask("", asked).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (403, "local_only"));
        assert!(refused.text().contains(why), "{}", refused.text());
        let left = json!({"max_tokens": 4, "messages": messages, "tether": {"session": format!("s{}", images.len())}});
        let reply = scene.world.ask("", left).await.unwrap().json();
        assert_eq!((&reply["tether"]["route"], &reply["tether"]["reason"]), (&json!("local"), &json!("local_only")));
        assert!(reply["tether"]["reason_detail"].as_str().unwrap().contains(why), "{reply}");
        assert_eq!(private(&scene.world, &format!("s{}", images.len())).await, [true; 4]);
    }
    assert!(scene.upstream.bodies().is_empty(), "{}", scene.upstream.everything());

    // Where no camera is private, none of any number is.
    let open = self::scene("").await;
    let asked = json!({"max_tokens": 4, "messages": told(&[unnamed(), unnamed(), unnamed(), unnamed()]),
        "tether": {"route": "cloud"}});
    assert_eq!(open.world.ask("", asked).await.unwrap().json()["tether"]["dropped_images"], 4);

    // Earlier images of cameras that may travel only stay behind.
    for images in [vec![picture("front")], vec![unnamed()]] {
        let asked = json!({"max_tokens": 4, "messages": told(&images), "tether": {"route": "cloud"}});
        let reply = scene.world.ask("", asked).await.unwrap().json();
        assert_eq!((&reply["tether"]["route"], &reply["tether"]["dropped_images"]), (&json!("cloud"), &json!(1)));
    }
}

#[tokio::test]
async fn an_attached_image_travels_and_the_answer_says_so() {
    let scene = scene("").await;
    let content = json!([{"type": "text", "text": "what is this?"}, picture("side")]);
    let extra = json!({"messages": [{"role": "user", "content": content}]});
    let reply = scene.world.ask("", extra).await.unwrap().json();
    let tether = &reply["tether"];
    assert_eq!((&tether["route"], &tether["views"]), (&json!("cloud"), &json!(["side"])), "{reply}");
    assert_eq!(tether["vision"], "native");
    let record = scene.world.get(&format!("/v1/turns/{}", tether["turn_id"].as_str().unwrap())).await.unwrap().json();
    assert_eq!(record["vision"], "native");
    assert_eq!((&tether["reason"], &reply["model"]), (&json!("views_needed"), &json!("far-1")));
    assert_eq!(reply["usage"]["total_tokens"], 10);
    let sent = scene.upstream.everything();
    assert!(tether["uplink_bytes"].as_u64().unwrap() >= 600, "{tether}");
    assert_eq!(sent.matches("data:image/jpeg").count(), 1);
    let metadata = scene.world.ask("", json!({"messages": [{"role": "user", "content": [picture("nose")]}]})).await;
    assert_eq!(metadata.unwrap().code(), "no_such_camera");
}
