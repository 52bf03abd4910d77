//! Pictures under limits: checked from the header before decoding, downscaled and re-encoded before they travel.
