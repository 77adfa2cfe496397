use super::csv::{Next as NextRow, Reader};
use super::json::{self, Line};
use super::resp;
use super::sink::Sink;
use crate::args::Format;
use crate::failure::Failure;
use crate::lines::{Lines, Next};
use crate::progress::Meter;
use kv_core::{Engine, Limits};
use std::io::{self, Read};

/// How an import reads its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) format: Format,
    /// Whether the input ends with the line that export writes.
    pub(crate) has_end: bool,
    /// The limits of keys and values.
    pub(crate) limits: Limits,
}

/// The longest line or row that a pair can need, bytes.
fn part_bytes_max(limits: &Limits) -> usize {
    // The names and the punctuation.
    const SLACK_BYTES: usize = 256;
    // The longest escape of JSON for one byte: \u0000.
    const ESCAPE_LEN: usize = 6;
    let bytes = limits.key_len_max.saturating_add(limits.value_len_max);
    bytes.saturating_mul(ESCAPE_LEN).saturating_add(SLACK_BYTES)
}

/// Puts every pair of `input` into the store. Returns their number.
pub(crate) fn import(
    engine: &dyn Engine,
    input: impl Read,
    settings: &Settings,
    is_ending: &dyn Fn() -> bool,
) -> Result<u64, Failure> {
    let meter = Meter::of_pairs("imported");
    let mut sink = Sink::new(engine, &meter);
    let mut input = match settings.format {
        Format::Json => Input::Json(Lines::new(input, part_bytes_max(&settings.limits)), 0),
        Format::Csv => Input::Csv(Reader::new(input, settings.has_end, part_bytes_max(&settings.limits))),
        Format::Resp => Input::Resp(resp::Reader::new(input, &settings.limits)),
    };
    let stopped = take_all(&mut input, &mut sink, settings, is_ending);
    let (place, taken) = (input.place(), sink.taken);
    match stopped {
        Ok(()) => Ok(taken),
        Err(Stop::Fault(fault)) => Err(Failure::Import { place, fault, taken }),
        Err(Stop::Store(error)) => {
            Err(Failure::Import { place, fault: Failure::Store(error).to_string(), taken })
        }
        Err(Stop::Input(error)) => Err(Failure::Input(error)),
    }
}

enum Stop {
    Fault(String),
    Store(kv_core::Error),
    Input(io::Error),
}

enum Input<R: Read> {
    /// With the number of the line.
    Json(Lines<R>, u64),
    Csv(Reader<R>),
    Resp(resp::Reader<R>),
}

fn take_all<R: Read>(
    input: &mut Input<R>,
    sink: &mut Sink<'_>,
    settings: &Settings,
    is_ending: &dyn Fn() -> bool,
) -> Result<(), Stop> {
    while let Some(line) = input.next(settings)? {
        if is_ending() {
            return Ok(());
        }
        match line {
            Line::Pair(key, value) => {
                sink.put(&key, &value).map_err(Stop::Store)?;
            }
            Line::End(expected) if expected == sink.taken => {
                return match input.next(settings)? {
                    None => Ok(()),
                    Some(_) => Err(Stop::Fault("the input goes on behind its end line".to_owned())),
                };
            }
            Line::End(expected) => {
                let fault = format!("the export had {expected} pairs, and this input has {}", sink.taken);
                return Err(Stop::Fault(fault));
            }
        }
    }
    if settings.has_end {
        let fault =
            "the input ends without the end line of an export, so it may be cut; add --no-end if it is whole";
        return Err(Stop::Fault(fault.to_owned()));
    }
    Ok(())
}

impl<R: Read> Input<R> {
    /// The place that was read last.
    fn place(&self) -> String {
        match self {
            Input::Json(_, line) => format!("line {line}"),
            Input::Csv(reader) => format!("line {}", reader.line()),
            Input::Resp(reader) => format!("command {}", reader.command()),
        }
    }

    fn next(&mut self, settings: &Settings) -> Result<Option<Line>, Stop> {
        let unit = match self {
            Input::Json(..) => "line",
            Input::Csv(_) => "row",
            Input::Resp(_) => "command",
        };
        let cut = || Stop::Fault(format!("the input ends within this {unit}, so it is cut"));
        let too_long = || {
            let max = part_bytes_max(&settings.limits);
            let fault = format!(
                "the {unit} is longer than {max} bytes (--key-len-max and --value-len-max raise this limit)"
            );
            Stop::Fault(fault)
        };
        match self {
            Input::Json(lines, number) => {
                *number += 1;
                match lines.next().map_err(Stop::Input)? {
                    Next::Line(line) => json::parse(line).map(Some).map_err(Stop::Fault),
                    Next::End => Ok(None),
                    Next::Cut => Err(cut()),
                    Next::TooLong => Err(too_long()),
                }
            }
            Input::Csv(reader) => of_next(reader.next().map_err(Stop::Input)?, cut, too_long),
            Input::Resp(reader) => of_next(reader.next().map_err(Stop::Input)?, cut, too_long),
        }
    }
}

fn of_next(
    next: NextRow,
    cut: impl FnOnce() -> Stop,
    too_long: impl FnOnce() -> Stop,
) -> Result<Option<Line>, Stop> {
    match next {
        NextRow::Line(line) => Ok(Some(line)),
        NextRow::Fault(fault) => Err(Stop::Fault(fault)),
        NextRow::TooLong => Err(too_long()),
        NextRow::Cut => Err(cut()),
        NextRow::End => Ok(None),
    }
}
