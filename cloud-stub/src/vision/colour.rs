//! Pixels by the names that people give to colours.

/// The eleven basic colour terms of English, and cyan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    Black,
    White,
    Grey,
    Red,
    Orange,
    Brown,
    Yellow,
    Green,
    Cyan,
    Blue,
    Purple,
    Pink,
}

impl Colour {
    pub const ALL: [Self; 12] = [
        Self::Black,
        Self::White,
        Self::Grey,
        Self::Red,
        Self::Orange,
        Self::Brown,
        Self::Yellow,
        Self::Green,
        Self::Cyan,
        Self::Blue,
        Self::Purple,
        Self::Pink,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::White => "white",
            Self::Grey => "grey",
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Brown => "brown",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Cyan => "cyan",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
        }
    }

    /// The name of an sRGB colour, by hue, saturation and value. The borders are where most people change the word.
    pub fn of([red, green, blue]: [u8; 3]) -> Self {
        let max = red.max(green).max(blue);
        let min = red.min(green).min(blue);
        let (value, saturation) = (f32::from(max) / 255.0, f32::from(max - min) / f32::from(max.max(1)));
        if value < 0.2 {
            return Self::Black;
        }
        if saturation < 0.16 {
            return if value > 0.85 { Self::White } else { Self::Grey };
        }
        match hue_degrees([red, green, blue]) {
            hue if !(15.0..345.0).contains(&hue) => {
                if saturation < 0.5 && value > 0.7 {
                    Self::Pink
                } else {
                    Self::Red
                }
            }
            hue if hue < 45.0 => {
                if value > 0.7 && saturation > 0.5 {
                    Self::Orange
                } else {
                    Self::Brown
                }
            }
            hue if hue < 70.0 => {
                if value > 0.5 {
                    Self::Yellow
                } else {
                    Self::Brown
                }
            }
            hue if hue < 165.0 => Self::Green,
            hue if hue < 195.0 => Self::Cyan,
            hue if hue < 255.0 => Self::Blue,
            hue if hue < 290.0 => Self::Purple,
            _ => {
                if value > 0.6 {
                    Self::Pink
                } else {
                    Self::Purple
                }
            }
        }
    }
}

fn hue_degrees([red, green, blue]: [u8; 3]) -> f32 {
    let [r, g, b] = [red, green, blue].map(f32::from);
    let max = r.max(g).max(b);
    let chroma = max - r.min(g).min(b);
    if chroma == 0.0 {
        return 0.0;
    }
    let sixth = if max == r {
        ((g - b) / chroma).rem_euclid(6.0)
    } else if max == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    60.0 * sixth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_colours_have_their_names() {
        let named = [
            ([0, 0, 0], Colour::Black),
            ([255, 255, 255], Colour::White),
            ([128, 128, 128], Colour::Grey),
            ([220, 20, 30], Colour::Red),
            ([255, 140, 0], Colour::Orange),
            ([120, 72, 30], Colour::Brown),
            ([250, 230, 40], Colour::Yellow),
            ([30, 150, 50], Colour::Green),
            ([0, 220, 220], Colour::Cyan),
            ([30, 60, 220], Colour::Blue),
            ([120, 40, 200], Colour::Purple),
            ([255, 150, 190], Colour::Pink),
        ];
        for (rgb, name) in named {
            assert_eq!(Colour::of(rgb), name, "{rgb:?}");
        }
    }
}
