//! Options of the formats of messages.

use super::enumeration::{Enumeration, known};
use super::fault::{Fault, required, template};
use super::generated::plan as wire;
use crate::connector::{Avro, AvroConfluent, DebeziumJson, Protobuf, Raw, RegistryAuth};

impl From<&Raw> for wire::Raw {
    fn from(raw: &Raw) -> wire::Raw {
        let Raw { on_error, big_endian } = raw;
        wire::Raw { on_error: on_error.number(), big_endian: *big_endian }
    }
}

impl TryFrom<wire::Raw> for Raw {
    type Error = Fault;

    fn try_from(raw: wire::Raw) -> Result<Raw, Fault> {
        Ok(Raw { on_error: known(raw.on_error, "on_error")?, big_endian: raw.big_endian })
    }
}

impl From<&DebeziumJson> for wire::DebeziumJson {
    fn from(debezium: &DebeziumJson) -> wire::DebeziumJson {
        let DebeziumJson { json, schema_include } = debezium;
        wire::DebeziumJson { json: Some(json.into()), schema_include: *schema_include }
    }
}

impl TryFrom<wire::DebeziumJson> for DebeziumJson {
    type Error = Fault;

    fn try_from(debezium: wire::DebeziumJson) -> Result<DebeziumJson, Fault> {
        Ok(DebeziumJson { json: required(debezium.json, "json")?, schema_include: debezium.schema_include })
    }
}

impl From<&Protobuf> for wire::Protobuf {
    fn from(protobuf: &Protobuf) -> wire::Protobuf {
        let Protobuf { on_error, message, descriptor, read_defaults, null_string } = protobuf;
        wire::Protobuf {
            on_error: on_error.number(),
            message: message.clone(),
            descriptor: descriptor.clone(),
            read_defaults: *read_defaults,
            null_string: null_string.clone(),
        }
    }
}

impl TryFrom<wire::Protobuf> for Protobuf {
    type Error = Fault;

    fn try_from(protobuf: wire::Protobuf) -> Result<Protobuf, Fault> {
        Ok(Protobuf {
            on_error: known(protobuf.on_error, "on_error")?,
            message: protobuf.message,
            descriptor: protobuf.descriptor,
            read_defaults: protobuf.read_defaults,
            null_string: protobuf.null_string,
        })
    }
}

impl From<&Avro> for wire::Avro {
    fn from(avro: &Avro) -> wire::Avro {
        let Avro { on_error, legacy_timestamps } = avro;
        wire::Avro { on_error: on_error.number(), legacy_timestamps: *legacy_timestamps }
    }
}

impl TryFrom<wire::Avro> for Avro {
    type Error = Fault;

    fn try_from(avro: wire::Avro) -> Result<Avro, Fault> {
        Ok(Avro { on_error: known(avro.on_error, "on_error")?, legacy_timestamps: avro.legacy_timestamps })
    }
}

impl From<&AvroConfluent> for wire::AvroConfluent {
    fn from(confluent: &AvroConfluent) -> wire::AvroConfluent {
        let AvroConfluent { avro, url, subject, auth } = confluent;
        let (basic, bearer) = match auth {
            RegistryAuth::None => (None, None),
            RegistryAuth::Basic(user) => (Some(user.as_str().to_owned()), None),
            RegistryAuth::Bearer(token) => (None, Some(token.as_str().to_owned())),
        };
        wire::AvroConfluent { avro: Some(avro.into()), url: url.clone(), subject: subject.clone(), basic, bearer }
    }
}

impl TryFrom<wire::AvroConfluent> for AvroConfluent {
    type Error = Fault;

    fn try_from(confluent: wire::AvroConfluent) -> Result<AvroConfluent, Fault> {
        let auth = match (confluent.basic, confluent.bearer) {
            (None, None) => RegistryAuth::None,
            (Some(user), None) => RegistryAuth::Basic(template(&user, "basic")?),
            (None, Some(token)) => RegistryAuth::Bearer(template(&token, "bearer")?),
            (Some(_), Some(_)) => return Err(Fault::new("bearer", "is set beside basic")),
        };
        let avro = required(confluent.avro, "avro")?;
        Ok(AvroConfluent { avro, url: confluent.url, subject: confluent.subject, auth })
    }
}
