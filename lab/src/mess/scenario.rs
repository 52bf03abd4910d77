//! What may go wrong while requests stream by.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Every answer is rated at once and nothing changes.
    Plain,
    /// One answer in five is rated.
    Sparse,
    /// Ratings come 50 requests late.
    Late,
    /// Half-way the model that a static mix relies on most becomes 30 points worse.
    Drop,
    /// Half-way the dearest model that a static mix uses halves its price, and the router is told.
    HalfPrice,
    /// The dearest model that a static mix uses joins half-way.
    ModelAdded,
    /// Two tenants take turns; the second asks for 10 points less.
    TwoTenants,
    /// One rating in twenty is wrong.
    WrongRatings,
}

impl Scenario {
    pub const ALL: [Scenario; 8] = [
        Self::Plain,
        Self::Sparse,
        Self::Late,
        Self::Drop,
        Self::HalfPrice,
        Self::ModelAdded,
        Self::TwoTenants,
        Self::WrongRatings,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sparse => "sparse",
            Self::Late => "late",
            Self::Drop => "drop",
            Self::HalfPrice => "half-price",
            Self::ModelAdded => "model-added",
            Self::TwoTenants => "two-tenants",
            Self::WrongRatings => "wrong-ratings",
        }
    }

    /// The probability that an answer is rated.
    pub(super) fn rated(self) -> f64 {
        if self == Self::Sparse { 0.2 } else { 1.0 }
    }

    /// Requests between an answer and its rating.
    pub(super) fn delay(self) -> usize {
        if self == Self::Late { 50 } else { 0 }
    }

    /// The probability that a rating is the opposite of the truth.
    pub(super) fn wrong(self) -> f64 {
        if self == Self::WrongRatings { 0.05 } else { 0.0 }
    }

    /// The level that the tenant of request `t` agreed on, and the tenant's number.
    pub(super) fn tenant(self, alpha: f64, t: usize) -> (usize, f64) {
        if self == Self::TwoTenants && t % 2 == 1 { (1, (alpha - 0.1).max(0.05)) } else { (0, alpha) }
    }
}

#[cfg(test)]
mod tests;
