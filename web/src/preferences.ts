// What a reader chose last time: theme, language, hints that were read.

export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`regard.${name}`);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`regard.${name}`, value);
  } catch {
    // A sandboxed frame has no storage; the choice then lasts as long as the page.
  }
}
