//! What the `[options]` of a face pipeline may say, with complete defaults. Anything else is an error: an option that does
//! nothing would be taken for one that works.

use millrace_core::{LoadError, LoadErrorKind, OptionReader};

/// How faces are looked for, and how much one picture may cost.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionOptions {
    /// `smallest_face`: the side of the smallest face to look for, in pixels; 12 to 10 000. Halving it quadruples the work.
    /// Default: 20.
    pub smallest_face: f64,
    /// `factor`: how much smaller each level of the pyramid is than the one before; 0.1 to 0.95. Default: 0.709.
    pub factor: f64,
    /// `thresholds`: the scores that a face must reach in the three stages; each 0 to 1. Default: `[0.6, 0.7, 0.7]`.
    pub thresholds: [f32; 3],
    /// `max_candidates`: the most candidates of one picture, at one level of the pyramid and in each stage; 1 to 16 384.
    /// Of more, those with the best scores are kept. Default: 2048.
    pub max_candidates: usize,
    /// `max_faces`: the most faces that an answer has for one picture; 1 to 16 384. Of more, those with the best scores are
    /// kept. Default: 1000.
    pub max_faces: usize,
}

impl Default for DetectionOptions {
    fn default() -> Self {
        Self { smallest_face: 20.0, factor: 0.709, thresholds: [0.6, 0.7, 0.7], max_candidates: 2048, max_faces: 1000 }
    }
}

/// How large a request may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureOptions {
    /// `max_pixels`: the most pixels of one picture; 1 to 268 435 456. A larger one is refused by its header. Default:
    /// 16 777 216.
    pub max_pixels: usize,
    /// `max_bytes`: the longest file, in bytes; 1 to 1 073 741 824. Default: 33 554 432.
    pub max_bytes: usize,
    /// `max_instances`: the most pictures of one request; 1 to 65 536. Default: 128.
    pub max_instances: usize,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self { max_pixels: 1 << 24, max_bytes: 1 << 25, max_instances: 128 }
    }
}

impl PictureOptions {
    pub(crate) fn read(reader: &mut OptionReader<'_>) -> Result<Self, LoadError> {
        let default = Self::default();
        Ok(Self {
            max_pixels: reader.number("max_pixels", default.max_pixels, 1..=1 << 28)?,
            max_bytes: reader.number("max_bytes", default.max_bytes, 1..=1 << 30)?,
            max_instances: reader.number("max_instances", default.max_instances, 1..=1 << 16)?,
        })
    }
}

impl DetectionOptions {
    pub(crate) fn read(reader: &mut OptionReader<'_>) -> Result<Self, LoadError> {
        let default = Self::default();
        Ok(Self {
            smallest_face: reader.number("smallest_face", default.smallest_face, 12.0..=10_000.0)?,
            factor: reader.number("factor", default.factor, 0.1..=0.95)?,
            thresholds: reader.numbers("thresholds", default.thresholds, 0.0..=1.0)?,
            max_candidates: reader.number("max_candidates", default.max_candidates, 1..=1 << 14)?,
            max_faces: reader.number("max_faces", default.max_faces, 1..=1 << 14)?,
        })
    }
}

/// Bytes. The most that the first network may be asked about one picture, at all sizes together: more than its queue takes
/// could never be answered.
const MOST_PYRAMID: f64 = 192.0 * 1024.0 * 1024.0;

/// Refuses options under which the largest picture allowed could never be answered.
pub(crate) fn check_pyramid(detection: &DetectionOptions, pictures: &PictureOptions) -> Result<(), LoadError> {
    let (scale, factor) = (12.0 / detection.smallest_face, detection.factor);
    // A geometric series: each size has the share `factor` of the one before, along both sides.
    let pixels = pictures.max_pixels as f64 * scale * scale / (1.0 - factor * factor);
    let bytes = pixels * 3.0 * size_of::<f32>() as f64;
    if bytes <= MOST_PYRAMID {
        return Ok(());
    }
    Err(invalid(format!(
        "options `smallest_face`, `factor` and `max_pixels`: the largest picture would be looked at in sizes that take {:.0} MiB \
         together, and {:.0} MiB are allowed; raise `smallest_face`, or lower `factor` or `max_pixels`",
        bytes / 1_048_576.0,
        MOST_PYRAMID / 1_048_576.0,
    )))
}

fn invalid(text: String) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_core::OptionReader;

    use super::{DetectionOptions, PictureOptions};

    fn read(options: &[(&str, &str)]) -> Result<(DetectionOptions, PictureOptions), String> {
        let options: BTreeMap<_, _> = options.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let mut reader = OptionReader::new(&options);
        let read = || {
            let read = (DetectionOptions::read(&mut reader)?, PictureOptions::read(&mut reader)?);
            reader.finish()?;
            Ok(read)
        };
        read().map_err(|error: millrace_core::LoadError| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(read(&[]), Ok((DetectionOptions::default(), PictureOptions::default())));
    }

    #[test]
    fn sizes_that_no_queue_would_take_are_refused_when_the_pipeline_is_made() {
        let check = |options: &[(&str, &str)]| {
            let (detection, pictures) = read(options).unwrap();
            super::check_pyramid(&detection, &pictures).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[]), Ok(()));
        let error = check(&[("smallest_face", "12"), ("factor", "0.95")]).unwrap_err();
        assert!(error.contains("`smallest_face`") && error.contains("192 MiB"), "{error}");
        assert_eq!(check(&[("smallest_face", "12"), ("factor", "0.95"), ("max_pixels", "1_000_000")]), Ok(()));
    }

    #[test]
    fn what_is_said_is_used() {
        let said = [("smallest_face", "40"), ("thresholds", "[0.5, 0.75, 1,]"), ("max_pixels", "1000")];
        let (detection, pictures) = read(&said).unwrap();
        assert_eq!((detection.smallest_face, detection.thresholds), (40.0, [0.5, 0.75, 1.0]));
        assert_eq!((pictures.max_pixels, pictures.max_instances), (1000, 128));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (name, text, error) in [
            ("smallest_face", "big", "option `smallest_face`: expected a number from 12 to 10000, got `big`"),
            ("smallest_face", "11.9", "option `smallest_face`: expected a number from 12 to 10000, got `11.9`"),
            ("factor", "NaN", "option `factor`: expected a number from 0.1 to 0.95, got `NaN`"),
            ("max_faces", "0", "option `max_faces`: expected a number from 1 to 16384, got `0`"),
            ("max_pixels", "-1", "option `max_pixels`: expected a number from 1 to 268435456, got `-1`"),
            (
                "thresholds",
                "[0.5, 0.5]",
                "option `thresholds`: expected a list of 3 numbers from 0 to 1, got `[0.5, 0.5]`",
            ),
            ("thresholds", "0.5", "option `thresholds`: expected a list of 3 numbers from 0 to 1, got `0.5`"),
            ("thresholds", "[]", "option `thresholds`: expected a list of 3 numbers from 0 to 1, got `[]`"),
        ] {
            assert_eq!(read(&[(name, text)]).unwrap_err(), error);
        }
        let unknown = read(&[("smalest_face", "20")]).unwrap_err();
        assert!(unknown == "unknown option `smalest_face`; did you mean `smallest_face`?", "{unknown}");
    }
}
