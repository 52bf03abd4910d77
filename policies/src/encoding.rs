//! How large pictures travel: the first of a short ladder that the link carries in time and the budgets have left. Pure.

/// How a picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung {
    /// The longer side is scaled down to this.
    pub max_side_px: u32,
    /// 1 to 100.
    pub jpeg_quality: u8,
}

/// Share of the configured side, and the most quality, of each further rung. Each has about a third of the bytes of the one
/// before it: a vision model still finds a mug on a table at 192 pixels, and hardly reads a label.
const FURTHER: [(f64, u8); 4] = [(0.75, 65), (0.5, 55), (0.35, 45), (0.25, 35)];
/// Below this nothing is seen.
const LEAST_SIDE_PX: u32 = 96;

/// The configured form, then smaller ones; none is larger in side or quality than the configured one.
pub fn ladder(configured: Rung) -> Vec<Rung> {
    let mut rungs = vec![configured];
    for (share, jpeg_quality) in FURTHER {
        let side = (f64::from(configured.max_side_px) * share) as u32;
        let rung = Rung {
            max_side_px: side.max(LEAST_SIDE_PX).min(configured.max_side_px),
            jpeg_quality: jpeg_quality.min(configured.jpeg_quality),
        };
        if rungs.last() != Some(&rung) {
            rungs.push(rung);
        }
    }
    rungs
}

/// What the pictures of one action must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// How long the upload may take, where the link's rate is known.
    pub upload_ms: f64,
    /// What the budgets have left; `None`: no limit.
    pub uplink_bytes: Option<u64>,
}

/// Of the rungs, whose turns put `uplink_bytes` on the network (largest first), the first within the bounds; the last if
/// none is. `upload_ms` tells how long so many bytes take; `None`: not known, which limits nothing.
pub fn choose(uplink_bytes: &[u64], upload_ms: impl Fn(u64) -> Option<f64>, bounds: Bounds) -> usize {
    let within = |bytes: u64| {
        bounds.uplink_bytes.is_none_or(|most| bytes <= most) && upload_ms(bytes).is_none_or(|ms| ms <= bounds.upload_ms)
    };
    let last = uplink_bytes.len().saturating_sub(1);
    uplink_bytes.iter().position(|bytes| within(*bytes)).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURED: Rung = Rung { max_side_px: 768, jpeg_quality: 80 };
    const BYTES: [u64; 5] = [100_000, 40_000, 15_000, 6_000, 3_000];

    #[test]
    fn the_default_ladder() {
        let rungs: Vec<(u32, u8)> =
            ladder(CONFIGURED).into_iter().map(|rung| (rung.max_side_px, rung.jpeg_quality)).collect();
        assert_eq!(rungs, [(768, 80), (576, 65), (384, 55), (268, 45), (192, 35)]);
        assert_eq!(ladder(Rung { max_side_px: 64, jpeg_quality: 20 }).len(), 1, "there is nothing smaller");
    }

    #[test]
    fn a_slow_link_gets_smaller_pictures() {
        let at = |bits_per_s: f64| {
            let upload_ms = |bytes: u64| Some(bytes as f64 * 8e3 / bits_per_s);
            choose(&BYTES, upload_ms, Bounds { upload_ms: 1_000.0, uplink_bytes: None })
        };
        assert_eq!([10e6, 500e3, 150e3, 50e3, 30e3, 1e3].map(at), [0, 1, 2, 3, 4, 4]);
        let unknown = choose(&BYTES, |_| None, Bounds { upload_ms: 1_000.0, uplink_bytes: None });
        assert_eq!(unknown, 0, "what is not known limits nothing");
    }

    #[test]
    fn the_bytes_that_are_left_count_too() {
        let with = |left| choose(&BYTES, |_| Some(0.0), Bounds { upload_ms: 1.0, uplink_bytes: Some(left) });
        assert_eq!([100_000, 99_999, 14_999, 3_000, 0].map(with), [0, 1, 3, 4, 4]);
    }

    proptest! {
        #[test]
        fn never_above_the_configured_form(side in 32u32..=4_096, quality in 1u8..=100) {
            let configured = Rung { max_side_px: side, jpeg_quality: quality };
            let rungs = ladder(configured);
            prop_assert_eq!(rungs[0], configured);
            for pair in rungs.windows(2) {
                prop_assert!(pair[1].max_side_px <= pair[0].max_side_px && pair[1].jpeg_quality <= pair[0].jpeg_quality);
                prop_assert!(pair[1] != pair[0]);
            }
        }

        #[test]
        fn a_better_link_or_more_bytes_never_mean_smaller_pictures(
            rate in 1e3f64..1e8, factor in 1.0f64..10.0, left in 0u64..200_000, more in 0u64..200_000,
        ) {
            let chosen = |rate: f64, left| {
                choose(&BYTES, |bytes| Some(bytes as f64 * 8e3 / rate), Bounds { upload_ms: 2_000.0, uplink_bytes: Some(left) })
            };
            prop_assert!(chosen(rate * factor, left) <= chosen(rate, left));
            prop_assert!(chosen(rate, left + more) <= chosen(rate, left));
        }
    }
}
