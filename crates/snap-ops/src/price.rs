use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// What reading from a store costs, in millionths of a unit of `currency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// For 10^9 bytes that leave the store.
    pub gb_micros: u64,
    /// For 1,000 requests that read.
    pub thousand_requests_micros: u64,
    /// Three letters, such as `EUR`.
    pub currency: String,
}

impl Price {
    /// What so many bytes and requests cost, in units of the currency.
    #[allow(clippy::cast_precision_loss)] // an estimate, shown to the cent
    pub fn of(&self, bytes: u64, requests: u64) -> f64 {
        let bytes = bytes as f64 / 1e9 * self.gb_micros as f64;
        let requests = requests as f64 / 1e3 * self.thousand_requests_micros as f64;
        (bytes + requests) / 1e6
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPrice {
    #[serde(default)]
    per_gb: Amount,
    #[serde(default)]
    per_1000_requests: Amount,
    currency: Option<String>,
}

/// `0.09`, or `1`.
#[derive(Default)]
struct Amount(u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if !(0.0..=1e9).contains(&value) {
            return Err(D::Error::custom("a price is a number from 0 on, such as 0.09"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the range
        Ok(Self((value * 1e6).round() as u64))
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawPrice::deserialize(deserializer)?;
        let currency = raw.currency.unwrap_or_else(|| "USD".to_owned());
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(D::Error::custom("a currency is three capital letters, such as EUR"));
        }
        let (gb_micros, thousand_requests_micros) = (raw.per_gb.0, raw.per_1000_requests.0);
        Ok(Self { gb_micros, thousand_requests_micros, currency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_and_multiplied() {
        let price: Price = toml::from_str("per-gb = 0.09\nper-1000-requests = 0.0004").unwrap();
        assert_eq!((price.gb_micros, price.thousand_requests_micros), (90_000, 400));
        // 250 GB at nine cents, 50,000 requests at 0.04 cents a thousand.
        assert!((price.of(250_000_000_000, 50_000) - 22.52).abs() < 1e-9);
        assert_eq!(price.currency, "USD");
        let price: Price = toml::from_str("per-gb = 1\ncurrency = \"EUR\"").unwrap();
        assert_eq!(
            (&*price.currency, price.gb_micros, price.thousand_requests_micros),
            ("EUR", 1_000_000, 0)
        );
        for bad in ["per-gb = -1", "per-gb = nan", "per-gb = \"x\"", "currency = \"euro\"", "per-mb = 1"] {
            assert!(toml::from_str::<Price>(bad).is_err(), "{bad}");
        }
    }
}
