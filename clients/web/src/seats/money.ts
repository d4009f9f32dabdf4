// Amounts: whole minor units in between, words at the edge.
import { create } from "@bufbuild/protobuf";
import { type Money, MoneySchema } from "../../gen/google/type/money_pb.js";

// So that a currency's smallest unit is exact.
const NANOS = 1_000_000_000n;

/** Return an amount in nanos of its unit. */
export function nanosOf(money: Money | undefined): bigint {
  return money === undefined ? 0n : money.units * NANOS + BigInt(money.nanos);
}

export function moneyOf(nanos: bigint, currencyCode: string): Money {
  return create(MoneySchema, { currencyCode, units: nanos / NANOS, nanos: Number(nanos % NANOS) });
}

export function sumOf(amounts: readonly (Money | undefined)[]): Money {
  const currency = amounts.find((amount) => amount !== undefined)?.currencyCode ?? "";
  return moneyOf(
    amounts.reduce((sum, amount) => sum + nanosOf(amount), 0n),
    currency,
  );
}

/** Say an amount, as "120.00 EGP": with as many decimals as the currency has. */
export function say(money: Money | undefined): string {
  if (money === undefined) return "";
  const decimals = decimalsOf(money.currencyCode);
  const nanos = nanosOf(money);
  const size = nanos < 0n ? -nanos : nanos;
  const fraction = String(size % NANOS)
    .padStart(9, "0")
    .slice(0, decimals);
  const sign = nanos < 0n ? "−" : "";
  return `${sign}${size / NANOS}${decimals === 0 ? "" : `.${fraction}`} ${money.currencyCode}`;
}

function decimalsOf(currencyCode: string): number {
  try {
    const format = new Intl.NumberFormat("en", { style: "currency", currency: currencyCode });
    return format.resolvedOptions().maximumFractionDigits ?? 2;
  } catch {
    return 2;
  }
}
