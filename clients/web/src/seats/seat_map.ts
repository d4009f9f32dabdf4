// Draws the seats of a vehicle as buttons: one stop of the tab key, arrow keys in between.
import type { Deck, Seat, SeatLayout } from "../../gen/wayfare/booking/v1/layout_pb.js";
import { element } from "../text.js";
import type { SeatBoard } from "./board.js";
import { say } from "./money.js";
import { fixtureWord, labelOf, type Mark, markOf, type PlacedSeat, placeSeats, type Step, stepFrom } from "./plan.js";

const KEYS: Record<string, Step> = {
  ArrowUp: "up",
  ArrowDown: "down",
  ArrowLeft: "left",
  ArrowRight: "right",
  Home: "first",
  End: "last",
};

/** Shows the seats of one journey, and says which one a person presses. */
export class SeatMapView {
  private readonly buttons = new Map<string, HTMLButtonElement>();
  private placed: PlacedSeat[] = [];
  private drawn = "";
  private current = "";

  constructor(
    private readonly container: HTMLElement,
    private readonly board: SeatBoard,
    private readonly press: (seatNumber: string, mark: Mark) => void,
  ) {
    this.container.addEventListener("keydown", (event) => this.walk(event));
  }

  /** Draw all: what the server says, what is chosen and what is held for the person. */
  draw(chosen: ReadonlySet<string>, mine: ReadonlySet<string>): void {
    const { layout } = this.board;
    if (layout === undefined) return;
    if (this.drawn !== layout.seatLayoutId) this.build(layout);
    for (const { seat } of this.placed) {
      const number = seat.seatNumber;
      this.mark(seat, markOf(this.board.stateOf(number), chosen.has(number), mine.has(number)));
    }
  }

  /** Let a seat be seen to have changed just now. */
  flash(seatNumber: string): void {
    const button = this.buttons.get(seatNumber);
    button?.animate([{ transform: "translate(-50%, -50%) scale(1.25)" }, {}], 600);
  }

  private build(layout: SeatLayout): void {
    this.drawn = layout.seatLayoutId;
    this.placed = placeSeats(layout);
    this.buttons.clear();
    const classes = layout.seatClasses.map(({ seatClassCode }) => seatClassCode);
    this.container.replaceChildren(
      ...layout.decks.map((deck, deckIndex) => {
        const group = element("div", "", "deck");
        group.setAttribute("role", "group");
        group.setAttribute("aria-label", deck.displayName || "Seats, front first");
        if (deck.displayName !== "") group.append(element("h3", deck.displayName));
        const floor = element("div", "", "floor");
        floor.style.setProperty("--columns", String(deck.columnCount));
        floor.style.setProperty("--rows", String(deck.rowCount));
        floor.append(...fixturesOf(deck));
        for (const place of this.placed) {
          if (place.deckIndex === deckIndex) floor.append(this.button(place, classes.indexOf(place.seat.seatClassCode)));
        }
        group.append(floor);
        return group;
      }),
    );
    this.focusable(this.placed[0]?.seat.seatNumber ?? "");
  }

  private button({ seat, x, y }: PlacedSeat, classIndex: number): HTMLButtonElement {
    const button = element("button", "", "seat") as HTMLButtonElement;
    button.type = "button";
    button.tabIndex = -1;
    button.dataset["seat"] = seat.seatNumber;
    button.dataset["class"] = String(classIndex);
    if (seat.accessible) button.dataset["accessible"] = "";
    button.style.setProperty("--x", String(x));
    button.style.setProperty("--y", String(y));
    button.append(element("span", seat.seatNumber, "number"));
    button.append(element("small", priceWord(this.board, seat.seatClassCode)));
    button.addEventListener("click", () => {
      this.focusable(seat.seatNumber);
      this.press(seat.seatNumber, button.dataset["mark"] as Mark);
    });
    button.addEventListener("focus", () => this.focusable(seat.seatNumber));
    this.buttons.set(seat.seatNumber, button);
    return button;
  }

  private mark(seat: Seat, mark: Mark): void {
    const { seatNumber, seatClassCode } = seat;
    const button = this.buttons.get(seatNumber);
    if (button === undefined) return;
    const name = this.board.classNameOf(seatClassCode);
    const label = labelOf(seat, mark, name, this.board.priceOf(seatClassCode));
    if (button.getAttribute("aria-label") === label) return;
    button.setAttribute("aria-label", label);
    button.title = label;
    button.dataset["mark"] = mark;
    button.setAttribute("aria-pressed", String(mark === "chosen" || mark === "mine"));
    // It can still be reached: whoever cannot see the plan wants to know what is there.
    button.setAttribute("aria-disabled", String(mark === "held" || mark === "booked" || mark === "blocked"));
  }

  private walk(event: KeyboardEvent): void {
    const step = KEYS[event.key];
    const from = this.placed.find(({ seat }) => seat.seatNumber === this.current);
    if (step === undefined || from === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const to = stepFrom(from, step, this.placed);
    if (to !== undefined) this.buttons.get(to.seat.seatNumber)?.focus();
  }

  private focusable(seatNumber: string): void {
    const before = this.buttons.get(this.current);
    if (before !== undefined) before.tabIndex = -1;
    this.current = seatNumber;
    const now = this.buttons.get(seatNumber);
    if (now !== undefined) now.tabIndex = 0;
  }
}

function fixturesOf(deck: Deck): HTMLElement[] {
  return deck.fixtures.map(({ kind, rowIndex, columnIndex, rowCount, columnCount }) => {
    const word = fixtureWord(kind);
    const drawn = element("div", word, word === "" ? "fixture way" : "fixture");
    const place = { left: columnIndex, top: rowIndex, wide: columnCount || 1, high: rowCount || 1 };
    for (const [name, value] of Object.entries(place)) drawn.style.setProperty(`--${name}`, String(value));
    return drawn;
  });
}

function priceWord(board: SeatBoard, seatClassCode: string): string {
  const words = say(board.priceOf(seatClassCode)).split(" ")[0] ?? "";
  // On a small square the cents are left out where there are none; the label says all.
  return words.replace(/\.0+$/, "");
}
