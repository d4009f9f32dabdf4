// What is in the wallet, and putting more into it at a payment gateway.
import type { Money } from "../../gen/google/type/money_pb.js";
import { Gateway } from "../../gen/wayfare/ledger/v1/deposit_pb.js";
import type { Session } from "../session.js";
import { element } from "../text.js";
import { ledger, persist } from "./calls.js";
import { moneyOf, nanosOf } from "./money.js";

// Each gateway takes one currency.
const GATEWAYS: Record<string, { gateway: Gateway; name: string; shown: string }> = {
  EGP: { gateway: Gateway.KASHIER, name: "KASHIER", shown: "Kashier" },
  LKR: { gateway: Gateway.PAYHERE, name: "PAYHERE", shown: "PayHere" },
};

// Who pays: PayHere, the only one with a form, wants that too, and only the person at the page knows it.
const PAYER: [name: string, words: string, autocomplete: AutoFill][] = [
  ["first_name", "First name", "given-name"],
  ["last_name", "Last name", "family-name"],
  ["email", "E-mail", "email"],
  ["phone", "Phone", "tel"],
  ["address", "Address", "street-address"],
  ["city", "City", "address-level2"],
  ["country", "Country", "country-name"],
];

export interface Page {
  url: string;
  fields: Record<string, string>;
}

export function gatewayOf(currencyCode: string): { name: string; shown: string } | undefined {
  return GATEWAYS[currencyCode];
}

/** Return what can be spent in a currency. */
export async function availableIn(session: Session, currencyCode: string): Promise<Money> {
  const { wallets } = await persist(() => ledger(session).getBalance({}));
  return wallets.find((wallet) => wallet.currencyCode === currencyCode)?.available ?? moneyOf(0n, currencyCode);
}

export function missing(amount: Money | undefined, available: Money): Money {
  const lack = nanosOf(amount) - nanosOf(available);
  return moneyOf(lack > 0n ? lack : 0n, available.currencyCode);
}

/** Begin a deposit; return the gateway's page, where it is paid. */
export async function beginDeposit(session: Session, amount: Money, requestId: string): Promise<Page> {
  const { gateway } = GATEWAYS[amount.currencyCode]!;
  const returnUrl = location.href;
  const answer = await persist(() => ledger(session).createDeposit({ gateway, amount, returnUrl, requestId }));
  return { url: answer.checkout?.url ?? "", fields: answer.checkout?.formFields ?? {} };
}

/** Return what opens a gateway's page in a tab of its own: this one keeps the seats in view. */
export function gatewayLink({ url, fields }: Page, words: string): HTMLElement {
  // Nothing but a web page is opened, whatever came.
  if (!/^https?:\/\//.test(url)) return element("p", "The payment page has no address. Pay in another way.", "refusal");
  if (Object.keys(fields).length === 0) {
    const link = element("a", words, "button primary") as HTMLAnchorElement;
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener";
    return link;
  }
  const form = element("form", "", "gateway") as HTMLFormElement;
  form.method = "post";
  form.action = url;
  form.target = "_blank";
  form.rel = "noopener";
  form.append(element("p", "The payment page asks who pays. It goes there only, and is not kept here.", "quiet"));
  for (const [name, asked, autocomplete] of PAYER) {
    if (name in fields) continue;
    const input = field(name);
    input.type = name === "email" ? "email" : name === "phone" ? "tel" : "text";
    input.autocomplete = autocomplete;
    input.required = true;
    input.maxLength = 100;
    const label = element("label", asked);
    label.append(input);
    form.append(label);
  }
  for (const [name, value] of Object.entries(fields)) {
    const input = field(name);
    input.type = "hidden";
    input.value = value;
    form.append(input);
  }
  const button = element("button", words, "primary") as HTMLButtonElement;
  button.type = "submit";
  form.append(button);
  return form;
}

function field(name: string): HTMLInputElement {
  const input = element("input", "") as HTMLInputElement;
  input.name = name;
  return input;
}
