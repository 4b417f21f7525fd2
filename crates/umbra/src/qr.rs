//! A link as a QR code of half blocks, for the camera of another device.

use std::io::{self, IsTerminal as _};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use zeroize::Zeroizing;

/// Draws `text`, light on dark as terminals are. Nothing if it is too long for a QR code.
pub(crate) fn draw(text: &str) -> Option<Zeroizing<String>> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    // Dark and light change places: on a dark terminal the character's ink is the light part.
    let image = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    let image = Zeroizing::new(image);
    let (on, off) = if io::stdout().is_terminal() { ("\x1b[97;40m", "\x1b[0m") } else { ("", "") };
    let mut drawn = Zeroizing::new(String::with_capacity(2 * image.len()));
    for line in image.lines() {
        for part in [on, line, off, "\n"] {
            drawn.push_str(part);
        }
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_square_and_of_half_blocks() {
        let drawn = draw("ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1").unwrap();
        let widths: Vec<_> =
            drawn.lines().map(|row| row.chars().filter(|c| " ▀▄█".contains(*c)).count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        assert!(widths[0].abs_diff(2 * widths.len()) <= 1);
    }

    #[test]
    fn what_is_too_long_is_not_drawn() {
        assert!(draw(&"x".repeat(4000)).is_none());
    }
}
