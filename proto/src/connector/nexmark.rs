//! `'connector' = 'nexmark'`: its options, and the columns that the auction model has.

use super::options::{OptionError, Options};
use super::{Nexmark, NexmarkTable, units};
use crate::schema::{DataType, Field, Schema, Unit};

/// 2026-01-01 00:00:00 UTC.
const BASE_TIME_MS: i64 = 1_767_225_600_000;
const EVENT_RATE: u64 = 10_000;

impl Nexmark {
    pub(super) fn parse(options: &mut Options, physical: &Schema) -> Result<Nexmark, OptionError> {
        let table = options.parsed("nexmark.table", "'person', 'auction' or 'bid'", |text| match text {
            "person" => Some(NexmarkTable::Person),
            "auction" => Some(NexmarkTable::Auction),
            "bid" => Some(NexmarkTable::Bid),
            _ => None,
        })?;
        let nexmark = Nexmark {
            table,
            events: options.number("events.num", "a whole number")?,
            event_rate: options.positive("first-event.rate")?.unwrap_or(EVENT_RATE),
            rows_per_second: options.positive("rows-per-second")?,
            seed: options.number("seed", "a whole number")?.unwrap_or(0),
            base_time_ms: options
                .parsed("base-time", "a time like '2026-03-14 06:59:00'", units::parse_instant_ms)?
                .unwrap_or(BASE_TIME_MS),
            disorder_ms: options.duration_ms("max-disorder")?.unwrap_or(0),
        };
        let model = Nexmark::columns(table);
        for field in &physical.fields {
            check(&model, field).map_err(|what| options.error("connector", what))?;
        }
        Ok(nexmark)
    }

    /// All columns that a table of the model may declare; it may leave out columns, and fields of rows.
    pub fn columns(table: Option<NexmarkTable>) -> Vec<Field> {
        let columns = |fields: &[(&str, DataType)]| -> Vec<Field> {
            fields.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect()
        };
        let (number, text, time) = (DataType::Int64, DataType::String, DataType::Timestamp(Unit::Milli));
        match table {
            Some(NexmarkTable::Person) => columns(&[
                ("id", number),
                ("name", text.clone()),
                ("emailAddress", text.clone()),
                ("creditCard", text.clone()),
                ("city", text.clone()),
                ("state", text.clone()),
                ("dateTime", time),
                ("extra", text),
            ]),
            Some(NexmarkTable::Auction) => columns(&[
                ("id", number.clone()),
                ("itemName", text.clone()),
                ("description", text.clone()),
                ("initialBid", number.clone()),
                ("reserve", number.clone()),
                ("dateTime", time.clone()),
                ("expires", time),
                ("seller", number.clone()),
                ("category", number),
                ("extra", text),
            ]),
            Some(NexmarkTable::Bid) => columns(&[
                ("auction", number.clone()),
                ("bidder", number.clone()),
                ("price", number),
                ("channel", text.clone()),
                ("url", text.clone()),
                ("dateTime", time),
                ("extra", text),
            ]),
            None => columns(&[
                ("event_type", DataType::Int32),
                ("person", DataType::Row(Nexmark::columns(Some(NexmarkTable::Person)))),
                ("auction", DataType::Row(Nexmark::columns(Some(NexmarkTable::Auction)))),
                ("bid", DataType::Row(Nexmark::columns(Some(NexmarkTable::Bid)))),
            ]),
        }
    }
}

fn check(model: &[Field], field: &Field) -> Result<(), String> {
    let Some(known) = model.iter().find(|known| known.name == field.name) else {
        let names: Vec<_> = model.iter().map(|known| format!("`{}`", known.name)).collect();
        return Err(format!("connector 'nexmark' has no column `{}`, expected {}", field.name, names.join(", ")));
    };
    match (&known.ty, &field.ty) {
        (DataType::Row(model), DataType::Row(fields)) => fields.iter().try_for_each(|field| check(model, field)),
        (known, declared) if known == declared => Ok(()),
        (known, declared) => {
            Err(format!("connector 'nexmark': column `{}` is declared {declared}, expected {known}", field.name))
        }
    }
}
