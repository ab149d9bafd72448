// @ts-check
/** How much of a reply's text the loudspeaker has said: sentence by sentence, by proportion. */

/** @typedef {import("./state.js").Stream} Stream */

/**
 * Characters of `text` that were heard, for showing progress.
 *
 * The server's own answer, from word timings, comes with `interrupted`; this is a
 * guess between two sentences whose first samples are known.
 * @param {string} text the whole text so far
 * @param {Stream} stream its sentences and how much of it was played
 */
export function heardCharacters(text, { sentences, played, received, total }) {
  let end = 0; // in the text, behind the sentences looked at
  let heard = 0;
  for (const [index, sentence] of sentences.entries()) {
    const begin = text.indexOf(sentence.text.trim(), end);
    if (begin < 0 || played <= sentence.from) break;
    const length = sentence.text.trim().length;
    const until = sentences[index + 1]?.from ?? total ?? Math.max(received, played);
    const share = Math.min(1, (played - sentence.from) / Math.max(1, until - sentence.from));
    end = begin + length;
    heard = begin + wordBoundary(sentence.text.trim(), Math.floor(share * length));
  }
  return Math.min(heard, text.length);
}

/** The end of the word in which that character stands. @param {string} text @param {number} at */
function wordBoundary(text, at) {
  if (at <= 0) return 0;
  const space = text.indexOf(" ", at);
  return space < 0 ? text.length : space;
}
