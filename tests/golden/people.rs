//! Drawn pictures of cameras and screens.

use commingle::codec::{Picture, PictureMut};
use commingle::media::Size;

/// Names in letters of the shipped font.
pub(crate) const NAMES: [&str; 9] = [
    "Ada Lovelace",
    "Γιώργος",
    "Zoë Ångström",
    "Пётр Ильич Чайковский",
    "Łukasz",
    "Nguyễn Văn An",
    "Jo",
    "Şebnem Öztürk",
    "D’Artagnan",
];

fn draw(size: Size, color: impl Fn(f32, f32) -> [u8; 3]) -> Picture {
    let mut picture = PictureMut::new(size);
    let (planes, strides) = picture.planes();
    for (i, plane) in planes.into_iter().enumerate() {
        let by = if i == 0 { 1 } else { 2 };
        for (x, y) in (0..size.height / by).flat_map(|y| (0..size.width / by).map(move |x| (x, y))) {
            let scale = by as f32 / size.height as f32;
            plane[y as usize * strides[i] + x as usize] = color(x as f32 * scale, y as f32 * scale)[i];
        }
    }
    picture.freeze()
}

/// A person before a wall: 640x360.
pub(crate) fn person(number: u32) -> Picture {
    let wall = [110 + number as u8 * 9 % 80, 118 + number as u8 * 7 % 24, 138 - number as u8 * 5 % 30];
    draw(Size::new(640, 360), |x, y| {
        let (dx, dy) = (x - 0.89, y - 0.42);
        if dx.hypot(dy) < 0.2 {
            return [150 + (dy * 60.0) as u8, 112, 150];
        }
        if (dx / 0.42).hypot((y - 1.05) / 0.42) < 1.0 {
            return [60 + number as u8 * 12, 140 - number as u8 * 4, 118];
        }
        [(f32::from(wall[0]) * (1.0 - 0.35 * y)) as u8, wall[1], wall[2]]
    })
}

/// A person before a wall in flat colours, which compress well: 640x360.
pub(crate) fn flat(number: u32) -> Picture {
    let (u, v) = (number as f32 * 2.4).sin_cos();
    let wall = [70 + (number * 37 % 60) as u8, (128.0 + 36.0 * u) as u8, (128.0 + 36.0 * v) as u8];
    draw(Size::new(640, 360), |x, y| {
        let dx = x - 0.89;
        if dx.hypot(y - 0.42) < 0.2 {
            return [175, 112, 150];
        }
        if (dx / 0.42).hypot((y - 1.05) / 0.42) < 1.0 { [45, 134, 122] } else { wall }
    })
}

/// Black lines on white: 1024x768.
pub(crate) fn slides() -> Picture {
    draw(Size::new(1024, 768), |x, y| {
        let line = y > 0.3 && y < 0.85 && (y * 12.0).fract() < 0.4 && x > 0.1 && x < 1.0 + (y * 31.0).sin() * 0.2;
        let title = y > 0.1 && y < 0.2 && x > 0.1 && x < 0.8;
        [
            if title {
                70
            } else if line {
                120
            } else {
                235
            },
            if title { 170 } else { 128 },
            128,
        ]
    })
}
