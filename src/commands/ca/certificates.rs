//! Makes the certificates of a CA that can sign WeChat's hosts and nothing else. Writes no file.
//!
//! A root signs one intermediate, and its key is dropped. Both are constrained to the hosts: Java checks the constraints of
//! intermediates and not those of a root, the others check both. All IP addresses are excluded, because constraints on names
//! alone leave addresses free. The intermediate is for servers only.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use time::UtcDateTime;
use zeroize::Zeroizing;

use crate::commands::messages;
use crate::model::errcode::Platform;
use crate::os::local_time::local;
use crate::upstream::roots::OWN_CA;

/// The hosts of WeChat's API and of WeCom's.
pub(super) const HOSTS: [&str; 2] = [Platform::Official.host(), Platform::Work.host()];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a CA is valid, in days.
const CA_DAYS: u32 = 3650;

/// How much earlier than now certificates become valid: the clocks of clients may be behind.
const BACKDATED: Duration = DAY;

/// A CA that can sign a server's certificate.
pub(super) struct Authority {
    /// What clients trust.
    root: CertificateDer<'static>,
    /// What the server sends after its own certificate.
    intermediate: CertificateDer<'static>,
    key: KeyPair,
    /// The hosts that it can sign.
    hosts: Vec<&'static str>,
}

/// A new CA, its two certificates in PEM, and when it ends.
pub(super) struct NewAuthority {
    pub(super) authority: Authority,
    pub(super) root: String,
    pub(super) intermediate: String,
    pub(super) ends: UtcDateTime,
}

/// A server's certificate in PEM, without its issuer's, and when it ends.
pub(super) struct ServerCertificate {
    pub(super) pem: String,
    pub(super) ends: UtcDateTime,
}

/// Why a client would not accept a certificate.
#[derive(Debug)]
enum Unacceptable {
    /// Its life, or that of its issuer, ended at this instant.
    Ended(UtcDateTime),
    Otherwise(String),
}

impl From<rustls::Error> for Unacceptable {
    fn from(err: rustls::Error) -> Unacceptable {
        let ended = match &err {
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            }) => i64::try_from(not_after.as_secs()).ok(),
            _ => None,
        };
        match ended.and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok()) {
            Some(at) => Unacceptable::Ended(at),
            None => Unacceptable::Otherwise(err.to_string()),
        }
    }
}

impl Authority {
    /// Makes a CA for these hosts.
    pub(super) fn generate(hosts: &[&'static str], now: UtcDateTime) -> Result<NewAuthority> {
        let ends = now + DAY * CA_DAYS;
        let (root_key, key) = (new_key()?, new_key()?);
        let root = ca_params(Role::Root, &root_key, hosts, now, ends)?;
        let params = ca_params(Role::Intermediate, &key, hosts, now, ends)?;
        let root_certificate = root.self_signed(&root_key).map_err(unsigned)?;
        let intermediate =
            params.signed_by(&key, &Issuer::new(root, &root_key)).map_err(unsigned)?;
        Ok(NewAuthority {
            root: root_certificate.pem(),
            intermediate: intermediate.pem(),
            ends,
            authority: Authority {
                root: root_certificate.into(),
                intermediate: intermediate.into(),
                key,
                hosts: hosts.to_vec(),
            },
        })
    }

    /// Returns the CA of these certificates and this key. Fails if they do not belong together, or if the CA's life has ended.
    pub(super) fn from_parts(
        root: CertificateDer<'static>,
        intermediate: CertificateDer<'static>,
        key: KeyPair,
        now: UtcDateTime,
    ) -> Result<Authority> {
        let mut authority = Authority { root, intermediate, key, hosts: Vec::new() };
        let key = new_key()?;
        let mut reason = String::new();
        // What it can sign shows in what it is accepted for.
        for hosts in [&HOSTS[..], &HOSTS[..1], &HOSTS[1..]] {
            authority.hosts = hosts.to_vec();
            match authority.verify(authority.signed(&key, now, now)?.der(), now) {
                Ok(()) => return Ok(authority),
                Err(Unacceptable::Ended(at)) => {
                    return Err(anyhow!(messages::CA_ENDED.with([&local(at)])));
                }
                Err(Unacceptable::Otherwise(what)) => reason = what,
            }
        }
        Err(anyhow!(messages::CA_MIXED.quoting([], reason)))
    }

    /// Returns the hosts that it can sign.
    pub(super) fn hosts(&self) -> &[&'static str] {
        &self.hosts
    }

    /// Returns its key in PEM.
    pub(super) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Signs a certificate for its hosts that is valid for `days`, or as long as the CA if that is over before. Fails unless
    /// rustls accepts it, now and at its end.
    pub(super) fn sign(
        &self,
        key: &KeyPair,
        days: u32,
        now: UtcDateTime,
    ) -> Result<ServerCertificate> {
        let mut ends = now + DAY * days;
        let mut certificate = self.signed(key, now, ends)?;
        if let Err(Unacceptable::Ended(at)) = self.verify(certificate.der(), ends) {
            ends = at;
            certificate = self.signed(key, now, ends)?;
        }
        for at in [now, ends] {
            if let Err(why) = self.verify(certificate.der(), at) {
                return Err(anyhow!(messages::CA_REFUSED.quoting([], format_args!("{why:?}"))));
            }
        }
        Ok(ServerCertificate { pem: certificate.pem(), ends })
    }

    fn signed(&self, key: &KeyPair, now: UtcDateTime, ends: UtcDateTime) -> Result<Certificate> {
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATED).into();
        params.not_after = ends.into();
        // The key may be that of the certificate before, whose number must be another.
        params.serial_number = Some(serial_number()?);
        let names = self.hosts.iter().map(|host| Ok(SanType::DnsName((*host).try_into()?)));
        params.subject_alt_names = names.collect::<Result<_, _>>().map_err(unsigned)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.hosts[0]);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = ca_params(Role::Intermediate, &self.key, &self.hosts, now, ends)?;
        params.signed_by(key, &Issuer::new(issuer, &self.key)).map_err(unsigned)
    }

    /// Verifies a certificate as clients that trust the root do.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        at: UtcDateTime,
    ) -> Result<(), Unacceptable> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let secs = u64::try_from(at.unix_timestamp()).unwrap_or_default();
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            std::slice::from_ref(&self.intermediate),
            UnixTime::since_unix_epoch(Duration::from_secs(secs)),
            default_provider().signature_verification_algorithms.all,
        )?;
        for host in &self.hosts {
            let name = ServerName::try_from(*host)
                .map_err(|err| Unacceptable::Otherwise(err.to_string()))?;
            verify_server_name(&parsed, &name)?;
        }
        Ok(())
    }
}

/// Makes a key, on the curve P-256.
pub(super) fn new_key() -> Result<KeyPair> {
    KeyPair::generate().map_err(|_| anyhow!(messages::NO_RANDOMNESS.text()))
}

fn serial_number() -> Result<SerialNumber> {
    let mut number = [0; 16];
    let filled = SystemRandom::new().fill(&mut number);
    filled.map_err(|_| anyhow!(messages::NO_RANDOMNESS.text()))?;
    number[0] = number[0] & 0x7f | 0x40; // Positive, and always as long.
    Ok(SerialNumber::from_slice(&number))
}

#[derive(Clone, Copy)]
enum Role {
    Root,
    Intermediate,
}

fn ca_params(
    role: Role,
    key: &KeyPair,
    hosts: &[&str],
    now: UtcDateTime,
    ends: UtcDateTime,
) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATED).into();
    params.not_after = ends.into();
    params.serial_number = Some(serial_number()?);
    let (name, path_length) = match role {
        Role::Root => ("root", 1),
        Role::Intermediate => ("intermediate", 0),
    };
    // Clients find issuers by their names, so no two have the same.
    let digest = digest(&SHA256, key.public_key_raw());
    let id: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, format!("only for {}", hosts.join(", ")));
    params.distinguished_name.push(DnType::CommonName, format!("{OWN_CA} {name} {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Role::Intermediate = role {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
    }
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: hosts.iter().map(|it| GeneralSubtree::DnsName((*it).into())).collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    Ok(params)
}

/// Cannot happen: nothing in the parameters comes from the user.
fn unsigned(err: rcgen::Error) -> anyhow::Error {
    anyhow!(messages::CA_CANNOT_SIGN.quoting([], err))
}
