//! What a turn is charged.

use tether_protocol::record::Usage;

/// The prices of one backend in USD; they add up. All zero: free.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Prices {
    pub usd_per_million_prompt_tokens: f64,
    pub usd_per_million_completion_tokens: f64,
    pub usd_per_request: f64,
    pub usd_per_image: f64,
}

impl Prices {
    /// The charge for one answered turn in USD.
    pub fn cost_usd(&self, usage: Usage, image_count: usize) -> f64 {
        let tokens = f64::from(usage.prompt_tokens) * self.usd_per_million_prompt_tokens
            + f64::from(usage.completion_tokens) * self.usd_per_million_completion_tokens;
        tokens / 1e6 + self.usd_per_request + image_count as f64 * self.usd_per_image
    }

    /// The first price that is not a finite number of at least zero, by its key in the settings.
    pub fn illegal(&self) -> Option<(&'static str, f64)> {
        [
            ("usd_per_million_prompt_tokens", self.usd_per_million_prompt_tokens),
            ("usd_per_million_completion_tokens", self.usd_per_million_completion_tokens),
            ("usd_per_request", self.usd_per_request),
            ("usd_per_image", self.usd_per_image),
        ]
        .into_iter()
        .find(|(_, price)| !price.is_finite() || *price < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_requests_and_images_add_up() {
        let prices = Prices {
            usd_per_million_prompt_tokens: 0.5,
            usd_per_million_completion_tokens: 2.0,
            usd_per_request: 0.001,
            usd_per_image: 0.01,
        };
        let usage = Usage { prompt_tokens: 1_000, completion_tokens: 250 };
        // 0.0005 + 0.0005 + 0.001 + 3 * 0.01
        assert!((prices.cost_usd(usage, 3) - 0.032).abs() < 1e-12);
        assert_eq!(Prices::default().cost_usd(usage, 3), 0.0);
    }

    #[test]
    fn a_price_that_is_no_amount_is_named() {
        let prices = Prices { usd_per_request: f64::NAN, ..Prices::default() };
        assert_eq!(prices.illegal().map(|found| found.0), Some("usd_per_request"));
        let prices = Prices { usd_per_image: -0.01, ..Prices::default() };
        assert_eq!(prices.illegal().map(|found| found.0), Some("usd_per_image"));
        assert_eq!(Prices::default().illegal(), None);
    }
}
