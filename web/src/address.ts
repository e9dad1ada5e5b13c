// The address bar follows the page, and the page follows the address bar.

import { fromHash, toHash } from "./link";
import type { PageData } from "./payload";
import type { State } from "./state";

/** The address follows the state once that has come to rest; browsers allow only so many changes of it. */
const REST = 150;

export class Address {
  private resting: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly start: State,
    private readonly data: PageData,
    private readonly state: () => State,
    changed: (state: State) => void,
  ) {
    // In a frame, which has no address, the page around it speaks for one.
    window.addEventListener("regard:go", (event) => {
      const to = (event as CustomEvent<string>).detail;
      if (to !== this.fragment()) changed(fromHash(to, this.start, this.data));
    });
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== this.fragment()) changed(this.read());
    });
  }

  /** The state that the address describes. */
  read(): State {
    return fromHash(location.hash, this.start, this.data);
  }

  /** Follow soon, or at once. */
  follow(now = false): void {
    clearTimeout(this.resting);
    if (now) this.write();
    else this.resting = setTimeout(() => this.write(), REST);
  }

  private fragment(): string {
    return toHash(this.state(), this.start);
  }

  private write(): void {
    const fragment = this.fragment();
    window.dispatchEvent(new CustomEvent("regard:at", { detail: fragment }));
    if (fragment === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", `#${fragment}`);
    } catch {
      // A srcdoc frame has no address of its own.
    }
  }
}
