//! The store, driven by a clock of its own.

use super::*;
use crate::image_codec::testing::{jpeg, picture, png};
use crate::image_codec::{EncodeOptions, prepare};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::prelude::*;
use tether_protocol::limits::{MAX_IMAGE_BYTES, MAX_VIEWS};
use tether_protocol::wire::ImageFormat;

const SECOND: Duration = Duration::from_secs(1);

fn views() -> (Views, Instant) {
    (Views::new(ViewsConfig::default(), EncodeOptions::default()).unwrap(), Instant::now())
}

#[test]
fn the_newest_frame_wins_and_ages() {
    let (mut views, start) = views();
    let info = views.push_frame("side", jpeg(32, 16), start).unwrap();
    assert_eq!((info.view.as_str(), info.format, info.width, info.height), ("side", "jpeg", 32, 16));
    views.push_frame("side", png(picture(8, 4)), start + SECOND).unwrap();
    views.push_frame("front", jpeg(16, 16), start).unwrap();
    let snapshot = views.snapshot(start + 2 * SECOND);
    let shown: Vec<_> = snapshot.frames.iter().map(|f| (f.view.as_str(), f.format, f.age_ms)).collect();
    assert_eq!(shown, [("front", ImageFormat::Jpeg, 2_000), ("side", ImageFormat::Png, 1_000)]);
    let left_out: Vec<_> = snapshot.left_out.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(left_out, ["overhead", "sensors"]);
}

#[test]
fn a_stale_view_is_left_out_at_its_limit_with_the_reason() {
    let (mut views, start) = views();
    views.push_frame("front", jpeg(16, 16), start).unwrap();
    views.push_sensor("battery", b"81", start).unwrap();
    let at = |seconds: u32, millis: u64| views.snapshot(start + seconds * SECOND + Duration::from_millis(millis));
    assert_eq!(at(10, 0).frames.len(), 1);
    let stale = at(10, 1);
    assert!(stale.frames.is_empty());
    assert!(stale.left_out[0].reason.contains("10.0 s old"), "{:?}", stale.left_out);
    assert_eq!(at(60, 0).sensors, [("battery".into(), "81".into(), 60_000)]);
    assert!(at(60, 1).sensors.is_empty());
}

#[test]
fn refusals_name_the_view_and_keep_what_was_held() {
    let (mut views, start) = views();
    views.push_frame("front", jpeg(16, 16), start).unwrap();
    let said = |result: Result<FrameInfo, PushError>| result.unwrap_err().to_string();
    let unknown = said(views.push_frame("fornt", jpeg(8, 8), start));
    assert!(unknown.contains("did you mean \"front\"") && unknown.contains("overhead"), "{unknown}");
    assert!(said(views.push_frame("sensors", jpeg(8, 8), start)).contains("PUT /v1/sensors"));
    assert!(said(views.push_frame("front", Bytes::from_static(b"GIF89a"), start)).contains("front"));
    assert!(said(views.push_frame(&"x".repeat(10_000), jpeg(8, 8), start)).len() < 300);
    assert!(views.push_sensor("battery", b"{", start).is_err());
    assert_eq!(views.snapshot(start).frames[0].width, 16);
}

#[test]
fn sensors_are_bounded_and_stale_ones_make_room() {
    let (mut views, start) = views();
    for i in 0..MAX_SENSORS {
        views.push_sensor(&format!("s{i}"), b"1", start).unwrap();
    }
    let more = views.push_sensor("more", b"1", start).unwrap_err();
    assert!(matches!(more, PushError::TooManySensors { .. }), "{more}");
    views.push_sensor("s0", b"2", start + 50 * SECOND).unwrap();
    views.push_sensor("more", b"1", start + 61 * SECOND).unwrap();
    let names: Vec<String> = views.snapshot(start + 61 * SECOND).sensors.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["more", "s0"]);
    let cameras = ViewsConfig(ViewsConfig::default().0.into_iter().filter(|v| v.kind == ViewKind::Camera).collect());
    let mut cameras = Views::new(cameras, EncodeOptions::default()).unwrap();
    assert_eq!(cameras.push_sensor("battery", b"1", start), Err(PushError::NoSensorView));
}

#[test]
fn sizes_are_predicted_then_measured_then_remembered() {
    let (mut views, start) = views();
    let size = |views: &Views| views.view_context(start)[0].encoded_bytes.clone();
    assert_eq!(size(&views), Reading::unknown("no frame was pushed"));
    views.push_frame("front", jpeg(320, 240), start).unwrap();
    assert!(matches!(size(&views), Reading::Known { source, .. } if source == "predicted from its size"));
    assert!(views.unmeasured("front").is_some() && views.unmeasured("side").is_none());
    let encoded = prepare(&views.snapshot(start).frames[0], &EncodeOptions::default()).unwrap();
    assert_eq!(size(&views), Reading::known(encoded.bytes.len() as u64, 0, "encoded"));
    views.push_frame("front", jpeg(320, 240), start).unwrap();
    let remembered = size(&views);
    assert!(matches!(&remembered, Reading::Known { source, .. } if source.contains("earlier")), "{remembered:?}");
    assert!(remembered.value().unwrap().abs_diff(encoded.bytes.len() as u64) <= 1);
    assert!(views.unmeasured("front").is_none(), "an earlier frame told");
    let forms = views.picture_bytes(start);
    assert_eq!((forms[0][0], forms[1].len(), forms[3].len()), (*remembered.value().unwrap(), 0, 0));
    assert!(forms[0].windows(2).all(|pair| pair[1] < pair[0]), "{forms:?}");
    views.push_sensor("t", b"1", start).unwrap();
    let names: Vec<String> = views.view_context(start).iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["front", "side", "overhead", "sensors"]);
    assert_eq!(views.view_context(start)[3].encoded_bytes.value(), Some(&2));
}

#[test]
fn the_settings_are_checked() {
    let read = |toml: &str| toml::from_str::<toml::Table>(toml).unwrap()["views"].clone().try_into::<ViewsConfig>();
    let views =
        read("[[views]]\nname = \"arm\"\nlocal_only = true\n[[views]]\nname = \"all\"\nkind = \"sensors\"\n").unwrap();
    assert_eq!(views.0[0].max_age(), Duration::from_secs(10));
    assert!(views.check().is_ok() && views.sensors().is_some() && views.0[0].local_only);
    assert!(read("[[views]]\nname = \"arm\"\nmax_age = 3\n").unwrap_err().to_string().contains("max_age"));
    let two =
        read("[[views]]\nname = \"a\"\nkind = \"sensors\"\n[[views]]\nname = \"b\"\nkind = \"sensors\"\n").unwrap();
    assert!(matches!(two.check(), Err(ViewsConfigError::TwoSensorViews { .. })));
    let view = ViewsConfig::default().0[0].clone();
    let many = (0..=MAX_VIEWS).map(|i| ViewConfig { name: ViewName::new(format!("v{i}")).unwrap(), ..view.clone() });
    assert!(ViewsConfig(many.clone().take(MAX_VIEWS).collect()).check().is_ok());
    assert!(ViewsConfig(many.collect()).check().is_err());
}

fn url(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

#[test]
fn a_data_url_is_a_frame() {
    let picture = jpeg(20, 10);
    let frame = parse_data_url(&url("image/jpeg", &picture), "image1").unwrap();
    assert_eq!((frame.view.as_str(), frame.width, &frame.bytes), ("image1", 20, &picture));
    let named = parse_data_url(&url("IMAGE/jpeg;name=front", &picture), "image1").unwrap();
    assert_eq!(named.view, "front");
}

#[test]
fn what_is_not_such_a_url_is_refused_clearly() {
    let picture = jpeg(20, 10);
    let error = |url: &str| parse_data_url(url, "image1").unwrap_err();
    for remote in ["https://host/cat.jpg", "HTTP://127.0.0.1/", "file:///etc/passwd"] {
        assert!(matches!(error(remote), DataUrlError::Remote { .. }), "{remote}");
    }
    for other in ["", "cat.jpg", "data", "data:image/jpeg", "blob:abc"] {
        assert!(matches!(error(other), DataUrlError::NotADataUrl), "{other}");
    }
    assert!(matches!(error(&url("image/gif", &picture)), DataUrlError::MediaType { .. }));
    assert!(matches!(error("data:image/png,abc"), DataUrlError::NotBase64));
    assert!(matches!(error(&url("image/png", &picture)), DataUrlError::Mislabelled { said: "png", found: "jpeg" }));
    assert!(matches!(error(&url("image/png;name=a/b", &picture)), DataUrlError::Name(_)));
    assert!(matches!(error("data:image/png;base64,a b="), DataUrlError::Base64 { .. }));
    assert!(matches!(error(&url("image/png", b"nothing")), DataUrlError::Image(ImageError::WrongMagic { .. })));
}

#[test]
fn the_size_is_checked_before_decoding() {
    let mut whole = jpeg(16, 16).to_vec();
    for extra in 0..3 {
        whole.resize(MAX_IMAGE_BYTES - extra, 0);
        assert!(parse_data_url(&url("image/jpeg", &whole), "image1").is_ok(), "{extra} below the limit");
    }
    whole.resize(MAX_IMAGE_BYTES + 1, 0);
    let error = parse_data_url(&url("image/jpeg", &whole), "image1").unwrap_err();
    assert!(matches!(error, DataUrlError::TooLarge { .. }), "{error}");
    // Not base64 at all: the size is found first.
    let huge = format!("data:image/jpeg;base64,{}", "!".repeat(MAX_IMAGE_BYTES * 2));
    assert!(matches!(parse_data_url(&huge, "image1").unwrap_err(), DataUrlError::TooLarge { .. }));
}

proptest! {
    #[test]
    fn any_text_is_answered_without_panic(text in "(data|http)?:?(image/(jpeg|png))?;?(base64)?,?.{0,40}") {
        let _ = parse_data_url(&text, "image1");
    }

    #[test]
    fn what_is_encoded_comes_back(width in 1u32..40, height in 1u32..40, as_png: bool) {
        let bytes = if as_png { png(picture(width, height)) } else { jpeg(width, height) };
        let kind = if as_png { "image/png" } else { "image/jpeg" };
        let frame = parse_data_url(&url(kind, &bytes), "image1").unwrap();
        prop_assert_eq!((frame.width, frame.height, frame.bytes), (width, height, bytes));
    }

    #[test]
    fn base64_is_strict(at in any::<prop::sample::Index>(), wrong in "[-_ \n=!]") {
        let mut text = url("image/jpeg", &jpeg(8, 8));
        let start = text.find(',').unwrap() + 1;
        let at = start + at.index(text.len() - start - 4);
        text.replace_range(at..=at, &wrong);
        let refused = matches!(parse_data_url(&text, "image1"), Err(DataUrlError::Base64 { .. }));
        prop_assert!(refused, "{}", text);
    }
}

#[test]
fn a_camera_has_one_source_and_a_device_only_where_it_can_be_read() {
    let front = ViewsConfig::default().0[0].clone();
    let check = |view: ViewConfig| ViewsConfig(vec![view]).check();
    let both = ViewConfig { folder: Some("a".into()), device: Some("/dev/video0".into()), ..front.clone() };
    assert!(matches!(check(both), Err(ViewsConfigError::FolderAndDevice(_))));
    let device = ViewConfig { device: Some("/dev/video0".into()), ..front };
    let sensors = ViewConfig { kind: ViewKind::Sensors, ..device.clone() };
    assert!(matches!(check(sensors), Err(ViewsConfigError::FolderOfSensors(_))));
    let read = check(device).map(drop).map_err(|error| error.to_string());
    assert_eq!(read.is_ok(), cfg!(feature = "v4l2"), "{read:?}");
    assert!(read.err().is_none_or(|error| error.contains("--features v4l2")));
}
