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
    if (fragment === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", `#${fragment}`);
    } catch {
      // A srcdoc frame has no address of its own.
    }
  }
}
