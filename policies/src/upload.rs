//! What each cloud action would put on the network, and how large its pictures travel. Pure.

use crate::encoding::{Bounds, choose};
use crate::link::send_time;
use crate::wire::Wire;
use tether_protocol::ViewSet;
use tether_protocol::context::Link;
use tether_protocol::record::Upload;

/// How long so many bytes are predicted to take, for the record; unknown before the link's rate is.
pub fn predicted(link: Option<&Link>, uplink_bytes: u64) -> Upload {
    let time = link.and_then(|link| send_time(link, uplink_bytes));
    Upload {
        predicted_ms: time.map(|time| time.median_s * 1e3),
        predicted_low_ms: time.map(|time| time.low_s * 1e3),
        predicted_high_ms: time.map(|time| time.high_s * 1e3),
        ..Upload::default()
    }
}

/// The sizes of one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// Of the request without views, with its frame.
    pub text_bytes: u64,
    /// What each view adds to that: its text, its announcement.
    pub view_bytes: Vec<u64>,
    /// What each view's picture has in each form, the configured one first; empty where there is no picture.
    pub pictures: Vec<Vec<u64>>,
    pub wire: Wire,
    pub bounds: Bounds,
}

/// How an action's pictures travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Of the ladder of encodings.
    pub rung: usize,
    /// Of the whole turn.
    pub uplink_bytes: u64,
}

impl Sizes {
    /// The largest form that this link carries in time and the budgets have left.
    pub fn form(&self, sent: ViewSet, link: Option<&Link>) -> Form {
        let pictures: Vec<&Vec<u64>> =
            sent.iter().filter_map(|view| self.pictures.get(view)).filter(|sizes| !sizes.is_empty()).collect();
        let text = self.text_bytes + sent.iter().filter_map(|view| self.view_bytes.get(view)).sum::<u64>();
        let rungs = pictures.iter().map(|sizes| sizes.len()).min().unwrap_or(1);
        let of_rung = |rung: usize| self.wire.uplink_bytes(text, pictures.iter().map(|sizes| sizes[rung]).sum());
        let uplink: Vec<u64> = (0..rungs).map(of_rung).collect();
        let upload_ms = |bytes| link.and_then(|link| send_time(link, bytes)).map(|time| time.median_s * 1e3);
        let rung = choose(&uplink, upload_ms, self.bounds);
        Form { rung, uplink_bytes: uplink[rung] }
    }

    /// What a view's picture is taken to have in this form; 0: there is none.
    pub fn picture_bytes(&self, view: usize, rung: usize) -> u64 {
        self.pictures.get(view).and_then(|sizes| sizes.get(rung)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_protocol::context::LinkState;

    fn sizes(uplink_bytes: Option<u64>) -> Sizes {
        let pictures = vec![vec![100_000, 40_000, 10_000, 2_000], vec![50_000, 20_000, 5_000, 1_000], Vec::new()];
        Sizes {
            text_bytes: 1_000,
            view_bytes: vec![60, 60, 400],
            pictures,
            wire: Wire::Http,
            bounds: Bounds { upload_ms: 1_000.0, uplink_bytes },
        }
    }

    fn link(bits_per_s: f64) -> Link {
        Link { min_rtt_ms: Some(20.0), uplink_bits_per_s: Some(bits_per_s), ..Link::in_state(LinkState::Up) }
    }

    #[test]
    fn one_picture_may_be_larger_than_two() {
        let (both, one) = (ViewSet(0b011), ViewSet(0b010));
        let rungs = |rate| {
            let link = link(rate);
            [both, one].map(|sent| sizes(None).form(sent, Some(&link)).rung)
        };
        assert_eq!(rungs(1e8), [0, 0]);
        assert_eq!(rungs(700e3), [1, 0]);
        assert_eq!(rungs(250e3), [2, 1]);
        assert_eq!(rungs(1e3), [3, 3], "the smallest, rather than none");
        assert_eq!(sizes(None).form(both, None).rung, 0, "an unknown link limits nothing");
    }

    #[test]
    fn few_bytes_left_make_pictures_smaller_before_they_are_lost() {
        let form = |left| sizes(Some(left)).form(ViewSet(0b111), None);
        assert_eq!(form(1 << 20).rung, 0);
        let small = form(25_000);
        assert_eq!(small.rung, 2);
        assert!(small.uplink_bytes <= 25_000, "{small:?}");
        assert_eq!(form(100).rung, 3);
    }

    #[test]
    fn text_and_sensors_have_one_form() {
        let form = sizes(Some(0)).form(ViewSet(0b100), Some(&link(1.0)));
        assert_eq!(form, Form { rung: 0, uplink_bytes: 1_000 + 400 + 512 });
        assert_eq!((sizes(None).picture_bytes(0, 1), sizes(None).picture_bytes(2, 0)), (40_000, 0));
    }
}
