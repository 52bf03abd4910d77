//! Pages that need no network: HTML with charts as SVG, for the laboratory's reports and the daemon's.

pub mod bars;
pub mod html;
pub mod plot;
