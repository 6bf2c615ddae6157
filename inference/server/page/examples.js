/** Texts to begin with. What follows the equals sign is JSON: `python -m training.evaluate --paragraphs` measures these texts, too. */

export const EXAMPLES = {
  "a greeting": "Hello there. This voice is being made on your own machine, word by word, while you listen.",
  "a story": "The old lighthouse keeper climbed the stairs one last time. Below him the harbour was quiet, and the lamps of the fishing boats swung slowly in the dark. He lit his own lamp, as he had done every evening for forty years, and sat down to wait for morning.",
  "numbers": "The 9:15 train costs $24.50 and takes 3 hours. On May 4th, 2026, about 1,200 people took it.",
  "a question": "Would you like to come with us? It is such a lovely morning, isn't it?"
};
