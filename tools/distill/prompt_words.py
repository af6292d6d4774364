"""Word lists and templates of training prompts: {name} stands for one of LISTS[name]."""


def _split(text):
    return [" ".join(part.split()) for part in text.split(";") if part.strip()]


LISTS = {
    "break": ["\n\n"],
    "animal": _split("""dog; hamster; octopus; penguin; elephant; wolf; goldfish; crow; horse; bat;
        dolphin; ant; spider; turtle; fox; owl; rabbit; crocodile; giraffe; jellyfish; mouse; lion;
        squirrel; frog; whale; butterfly; hedgehog; chameleon; pigeon; camel"""),
    "object": _split("""umbrella; piano; bicycle; clock; mirror; suitcase; camera; lamp; guitar;
        notebook; typewriter; sofa; kite; telescope; key; vacuum cleaner; pair of shoes; kettle;
        candle; map; violin; ladder; toaster; ring; mug; tent; chess set; blanket; radio"""),
    "place": _split("""Tokyo; a small village; the desert; Mars; Paris; an island; New York; a farm;
        the Amazon; an old castle; Iceland; a spaceship; the library; Kenya; a hospital; Rome; the
        market; a submarine; Australia; a hotel; the mountains; Peru; an attic; Canada; a zoo;
        Venice; the North Pole; a bakery; India; a ship"""),
    "person": _split("""my sister; my boss; my best friend; my teacher; a customer; my neighbour;
        my husband; my daughter; my doctor; a stranger; my cousin; my coach; my grandfather;
        a colleague; my son; our new intern; my wife; my uncle; a client; my girlfriend"""),
    "job": _split("""nurse; software engineer; plumber; pilot; chef; teacher; lawyer; farmer;
        electrician; designer; journalist; accountant; carpenter; firefighter; translator;
        dentist; data analyst; bus driver; architect; photographer; manager; waiter; tailor"""),
    "science": _split("""gravity; photosynthesis; black holes; DNA; evolution; magnetism; atoms;
        the water cycle; volcanoes; vaccines; electricity; plate tectonics; enzymes; the immune
        system; lasers; quantum mechanics; relativity; the greenhouse effect; batteries; neurons;
        antibiotics; the periodic table; entropy; sound waves; genetics; comets; digestion;
        nuclear fusion; acids and bases; the ozone layer; the Big Bang; hormones; lightning;
        fermentation; static electricity; stem cells; rainbows; earthquakes; bones; the moon"""),
    "history": _split("""World War I; the Roman Empire; ancient Egypt; the Silk Road; the Cold War;
        the Industrial Revolution; the Renaissance; the Vikings; the moon landing; Napoleon;
        the printing press; the Black Death; the Aztecs; the Berlin Wall; the Ottoman Empire;
        Cleopatra; the Great Depression; Gandhi; the Titanic; the Wright brothers; Genghis Khan;
        the American Civil War; Marie Curie; feudalism; the Olympic Games; Martin Luther King;
        Leonardo da Vinci; the Magna Carta; Nelson Mandela; the steam engine"""),
    "concept": _split("""inflation; democracy; supply and demand; compound interest; blockchain;
        machine learning; the stock market; cloud computing; human rights; globalization;
        philosophy; stoicism; a mortgage; encryption; social media; free will; capitalism;
        artificial intelligence; recycling; copyright; insurance; justice; metaphors; irony;
        game theory; empathy; procrastination; habits; logic; statistics; probability; the
        internet; GPS; 3D printing; renewable energy; taxes; meditation; culture; body language"""),
    "skill": _split("""play the guitar; cook; draw; swim; speak French; code; write better; run;
        negotiate; manage my time; garden; take photos; knit; public speaking; play chess; sew;
        dance; budget; fix a bike; sing; bake bread; meditate; type faster; ski; learn maths;
        read faster; paint; remember names; juggle; train a puppy; do yoga; edit videos"""),
    "food": _split("""pizza; pancakes; lentil soup; sushi; apple pie; tacos; chicken curry; salad;
        chocolate cake; omelette; risotto; hummus; bread; ice cream; burgers; ramen; lasagna;
        cookies; fried rice; guacamole; roast potatoes; tomato sauce; dumplings; granola"""),
    "problem": _split("""my laptop is slow; I feel tired all day; my plants are dying; I lost my
        passport; my car makes a strange noise; I have a headache; my phone battery dies quickly;
        I can't focus; my wifi keeps dropping; I had a fight with my friend; my back hurts;
        I am nervous about an exam; my dog barks at night; I spend too much money; my sink is
        clogged; I forgot my password; my baby won't sleep; I feel lonely at work; my bike chain
        slips; I have too many emails; my bread does not rise; I failed an interview"""),
    "event": _split("""a wedding; a birthday party; a job interview; a road trip; a funeral;
        a conference; a first date; a picnic; a school trip; a marathon; a dinner party; a move;
        a baby shower; a concert; a graduation; a camping weekend; a book club; Christmas;
        a hackathon; a charity run; a team workshop; a house warming; New Year's Eve"""),
    "number": _split("3; 4; 5; 6; 7; 8; 10; 12; three; four; five; six; ten; a few; several"),
    "count": _split("2; 3; 4; 5; 6; 7; 8; 9; 11; 12; 14; 15; 16; 18; 20; 24; 25; 30; 36; 45; 48"),
    "large": _split("100; 120; 150; 200; 240; 250; 300; 360; 450; 500; 640; 800; 1000; 1250; 2000"),
    "percent": _split("5; 8; 10; 12; 20; 25; 30; 40; 60; 75"),
    "language": _split("""Python; JavaScript; Java; C++; C; Go; Rust; Ruby; TypeScript; PHP; Bash;
        SQL; Python; Python; HTML; Swift; Kotlin; R"""),
    "task": _split("""sort a list of numbers; count the words in a text; find the largest element;
        read a CSV file; compute the factorial; merge two dictionaries; remove duplicates;
        validate an email address; convert Celsius to Fahrenheit; find prime numbers; download a
        web page; parse JSON; shuffle a deck of cards; compute Fibonacci numbers; binary search;
        reverse the words of a sentence; flatten a nested list; check if two words are anagrams;
        implement a stack; implement a queue; group items by key; compute the average; write a
        log file; draw a triangle of stars; convert numbers to Roman numerals; count vowels;
        rotate a matrix; generate a random password; compute the greatest common divisor; find
        missing numbers; transpose a matrix; traverse a binary tree; depth first search; cache
        results; connect to a database; send an HTTP request; split a string; format a date;
        sum the digits of a number; simulate a dice roll; make a simple calculator; read user
        input; rename files; handle errors; build a todo list; find the median; zip two lists"""),
    "tool": _split("""git; Docker; Linux; Excel; regular expressions; pandas; React; vim; Kubernetes;
        REST APIs; CSS flexbox; numpy; recursion; pointers; unit tests; classes; inheritance;
        threads; hash tables; list comprehensions; decorators; closures; async and await;
        Big O notation; environment variables; virtual environments; generics; lambda functions;
        linked lists; version control; databases; indexes; exceptions; type hints; interfaces"""),
    "genre": _split("""fairy tale; science fiction story; mystery; love story; fable; adventure;
        comedy; thriller; legend; horror story; western; fantasy story; diary entry; monologue"""),
    "poem": _split("poem; limerick; sonnet; song; rhyme; free verse poem; lullaby; rap; ballad"),
    "theme": _split("""friendship; the sea; autumn; time; courage; a lost letter; winter; hope;
        forgiveness; music; a secret; the city at night; home; jealousy; luck; a storm; silence;
        growing up; the future; memory; dreams; loneliness; spring; freedom; a broken promise"""),
    "style": _split("""formal; friendly; funny; simple; persuasive; neutral; poetic; short; casual;
        dramatic; professional; encouraging; sarcastic; clear"""),
    "tongue": _split("French; German; Italian; Portuguese; Dutch; Spanish; Latin; Japanese; Polish"),
    "audience": _split("""a child; a ten year old; a beginner; an expert; my grandmother; a high
        school student; a busy manager; someone who has never heard of it; a tourist; a class"""),
    "letter": _split("""an email; a letter; a short message; a text message; a note; a postcard;
        an invitation; an apology; a thank-you letter; a reminder; a recommendation; a request;
        a complaint; a newsletter; an announcement; a memo; a reply; a speech; a blog post; a
        product description; a press release; a review; a social media post; a tweet; a slogan;
        a user story; a meeting agenda; a report; an essay; a bio"""),
    "matter": _split("""a refund; a delayed package; a day off; a raise; a meeting next week; a new
        product; a wrong invoice; noise at night; a lost dog; a broken window; my vacation; a
        software update; a new policy; the holiday season; a birthday; a promotion; volunteers;
        a price increase; a project that is late; a sponsorship; a school visit; a parking space;
        a cancelled flight; our anniversary; a garage sale; an internship; a water leak"""),
    "name": _split("""Maria; Tom; Aisha; John; Mei; Carlos; Emma; Omar; Julia; Peter; Sara; Ivan;
        Lena; David; Priya; Max; Nina; Ahmed; Grace; Leo; Kate; Victor; Rosa; Sam; Fatima; Hugo"""),
    "thing": _split("""apples; books; marbles; coins; pencils; tickets; eggs; stamps; chairs; cups;
        stickers; flowers; boxes; oranges; candies; cards; bottles; balls; cookies; toys"""),
    "sentence": _split("""The weather was bad so we stayed at home; He go to school every day by bus;
        The meeting has been moved to Thursday at noon; I am writing to you because of the bill;
        Our shop sells fresh bread and cakes; The results of the study were not what we expected;
        Me and him was going to the store; The old man walked slowly along the river; You must
        finish the work by Monday; I think that the movie was very very good; There is many
        reasons for learn a language; The quick brown fox jumps over the lazy dog; Due to the fact
        that it rained, the match was cancelled; We regret to inform you that your order is late;
        The committee will make a decision on the proposal; She said that she don't know the
        answer; The company made a large profit last year; It is important to drink enough water;
        Nobody knew where the noise was coming from; The train leave at eight and arrive at ten;
        I want my money back because the thing is broken; Their going to loose the game; He was
        fired because he was always late; The cat sat on the mat and looked at the bird"""),
    "passage": _split("""Coffee was first drunk in Yemen in the fifteenth century. From there it
        spread to Egypt, Turkey and Europe. Today it is grown in more than seventy countries;
        The museum opens a new exhibition on Saturday. It shows two hundred photographs of the
        city from the last hundred years. Entrance is free for students; Rivers carry sand and
        mud to the sea. Where the water slows down, this material sinks and builds a delta. Many
        cities lie on such land; Tom lost his wallet on the bus. A driver found it and called the
        number on a card inside. The next day Tom brought him a cake; Many birds fly south in
        autumn. They follow the coast, the stars and the magnetic field of the earth. Some of them
        travel more than ten thousand kilometres; A new study finds that short walks after meals
        lower blood sugar. Even five minutes helped. The effect was largest for older people;
        The software was released in May. Since then users have reported forty bugs, of which most
        were fixed within a week. The next version will bring a faster search; The market of our
        town is two hundred years old. Farmers sell fruit, cheese and flowers there every Friday.
        Lately fewer people come, since a supermarket opened nearby; Glass is made of sand that is
        melted at very high heat. Colours come from small amounts of metal. It can be recycled
        again and again; The team lost the first three games. Then a new coach arrived and changed
        the training. In the end they finished second; Solar panels turn light into electricity.
        They work best when they are cool and face the sun. Dust on them lowers the yield; The
        library will be renovated in the summer. Books can be borrowed at the town hall during
        that time. The reading room stays closed until October"""),
    "topic": _split("""{science}; {history}; {concept}; {tool}; {animal}s; {food}; {event}; {theme};
        {science}; {concept}; {history}"""),
    "statement": _split("""Children should learn to code; Homework should be banned; Cats are better
        than dogs; Cars should not be allowed in cities; Everyone should work from home; Money
        makes people happy; Zoos should be closed; Paper books are better than e-books; Breakfast
        is the most important meal; Social media does more harm than good; Exams are unfair;
        Tourism is good for small towns; Robots will take our jobs; Travel makes you wiser"""),
}

TEMPLATES = """What is {concept}?|What are {tool}?|Explain {science}.|Explain {topic} to {audience}.
How does {concept} work?|How do {tool} work?|Tell me about {history}.|What do you know about {topic}?
Why is {topic} important?|What is the history of {food}?|How did {history} change the world?
Can you explain {science} in simple terms?|Give me an example of {concept}.|Who discovered {science}?
What is the difference between {concept} and {concept}?|Compare {animal}s and {animal}s.
What do {animal}s eat?|How long does {food} keep in the fridge?|How do I make {food}?
Give me a recipe for {food}.|What can I serve with {food}?|How do I learn to {skill}?
I want to {skill}. Where do I begin?|Give me a {count} day plan to {skill}.
{number} tips on how to {skill}|List {number} facts about {topic}.|List {number} uses for a {object}.
Give me {number} ideas for {event}.|What do I need for {event}?|Make a checklist for {event}.
Name {number} things about {place}.|What should I see in {place}?|Plan a day in {place}.
Suggest {number} names for a {animal}.|Suggest {number} gifts for {person}.
What are the pros and cons of {concept}?|Do you agree? {statement}.|Argue against this: {statement}.
Write an essay: {statement}.|Debate: {statement}. Give both sides.|What is your opinion on {topic}?
Write a {genre} about a {animal}.|Write a {genre} set in {place}.|Write a {poem} about {theme}.
Write a {genre} about a {job} and a {object}.|Tell me a story about {theme}.|Tell me a joke about {animal}s.
Write a {style} {poem} about a {object}.|Begin a {genre} with the words "{sentence}".
Write a dialogue between a {job} and a {animal}.|Describe {place} in {number} sentences.
Describe a {object} without naming it.|Invent a holiday about {theme}.|Write a riddle about a {object}.
Write {letter} about {matter}.|Write {letter} to {person} about {matter}.|Help me write {letter} for {event}.
Write {letter} in a {style} tone about {matter}.|As a {job}, write {letter} about {matter}.
Write a job description for a {job}.|Interview questions for a {job}?|What does a {job} do all day?
How do I become a {job}?|{problem}. What can I do?|Help, {problem}!|{person} says that {problem}. Any advice?
I have a problem: {problem}.|How do I tell {person} about {matter}?|I need advice about {person}.
Write a {language} function to {task}.|Write a {language} program that can {task}.
How do I {task} in {language}?|Show me how to {task} with {language}.|What are {tool} in {language}?
Explain {tool} with an example.|Write {language} code to {task} and explain it step by step.
Give me a {language} snippet to {task}.|When should I use {tool}?|Best practices for {tool}?
What is the complexity of code to {task}?|Compare {language} and {language}.|Debug my {language} code to {task}.
Write tests for a function to {task} in {language}.|Write a class in {language} for a {object} shop.
Summarize {history}.|Summarize this: {passage}.|Give a short summary of the following text.{break}{passage}.
What is this text about? {passage}.|Write a title for this text: {passage}.|Answer from the text: {passage}. What happened?
Rewrite this in a {style} way: {passage}.|Continue this text: {passage}.|Make bullet points of this: {passage}.
Rewrite this sentence in a {style} tone: {sentence}.|Fix the grammar: {sentence}.|Paraphrase: {sentence}.
Translate to {tongue}: {sentence}.|Improve this sentence: {sentence}.|Turn this into a question: {sentence}.
Shorten: {sentence}.|Is this sentence correct? {sentence}.|How do you say "{object}" in {tongue}?
{name} has {count} {thing} and buys {count} more. How many {thing} does {name} have?
{name} has {large} {thing} and gives {count} of them to {name}. How many are left?
{name} earns {count} dollars an hour. How much is it for {count} hours?|What is {count} times {count}?
A car goes {large} km in {count} hours. How fast is it?|What is {percent}% of {large}?|What is {count} + {count} * {count}?
A {object} costs {large} dollars and is {percent}% off. What is the price?|Divide {large} by {count}.
If {count} workers need {count} days, how long do {count} workers need?|Solve for x: {count}x + {count} = {large}.
{name} is {count} years old and {name} is twice as old. What is the sum of their ages?
What is the area of a rectangle of {count} by {count} cm?|Convert {large} miles to kilometres.
Which is better for {event}, a {object} or a {object}? Why?|What if there were no {thing}?|What would happen if {animal}s could talk?
Hi! How are you today?|What can you do?|I'm bored.|Let's play a game about {animal}s.|Act as a {job} and talk with me.
Teach me something about {topic}.|Quiz me on {topic}.|Make a table of {number} {thing} and their prices.
Classify these words: {object}, {animal}, {food}, {thing}.|Find the odd one out: {animal}, {animal}, {object}, {animal}.
Give me a synonym for "{style}".|Use "{object}" and "{theme}" in one sentence.|Define {concept} in one sentence.
Write a product description for a {object}.|Write a slogan for a {food} restaurant.|Write a review of a {object}.
Make a quote about {theme}.|What does {theme} mean to you?|How are {topic} and {topic} related?
What are common myths about {topic}?|Make a timeline of {history}.|What are the steps to {skill}?"""
TEMPLATES = [part for line in TEMPLATES.split("\n") for part in line.split("|")]

GREETINGS = ["Hi!", "Hello,", "Hey,", "Please help me.", "Quick question:", "Good morning.", "Dear AI,",
             "I was wondering:", "Could you do this?", "For school:", "For work:", "ok so"]
WISHES = ["Keep it short.", "Please be detailed.", "Use simple words.", "Answer in one paragraph.",
          "Think step by step.", "Use bullet points.", "Thanks!", "In 50 words or less.",
          "Explain your answer.", "Give examples.", "Be creative.", "No more than three sentences.",
          "Use headings.", "Make it funny.", "I'm a beginner.", "Give me the answer only."]
BACKGROUNDS = ["I am a {job}.", "It is for {event}.", "I live in {place}.", "I asked {person} already.",
               "My level is beginner.", "The audience is {audience}.", "I like {topic}."]

OPENINGS = """How|How do|How do I|How can I|How can you|What|What is|What is the|What are|What are the best
Why|Why do|Why is|Why are|When|When did|Who|Who was|Where|Where can I|Which|Is|Is it|Are|Are there|Do|Does|Do you
Can|Can you|Can you help|Can you explain|Can you write|Could you|Could you please|Would|Should|Should I|I|I am|I'm
I'm trying to|I'm a {job}|I'm working on|I want|I want to|I need|I need a|I need help with|I have|I have a|I've been
I think|I was|I just|I can't|I don't understand|My|My {animal}|My friend|My computer|My job|We|We are|Our|Our company
Write|Write a|Write a short|Write a poem|Write a story about|Write a Python|Write a function|Write an email|Write an
Create|Create a|Create a list|Generate|Generate a|Give|Give me|Give an|List|List the|Name|Name a|Tell me|Tell a
Explain|Explain the|Explain why|Describe|Describe the|Describe a|Discuss|Compare|Summarize|Summarize the|Rewrite
Rewrite the following|Paraphrase|Edit|Correct|Fix|Improve|Translate|Convert|Calculate|Compute|Solve|Find|Find the
Determine|Identify|Classify|Analyze|Evaluate|Design|Design a|Develop|Plan|Plan a|Suggest|Recommend|Propose|Draft
Draft a|Compose|Make|Make a|Build|Implement|Implement a|Show|Show me|Provide|Provide a|Imagine|Suppose|If|If a|If I
Given|Given a|Given the|Consider|Let's|Let|Please|Please write|Please explain|Help|Help me|The|The following|A|An
In|In what|In the|During|After|Before|As a|As a {job}|You are|You are a|Act as|Pretend|Pretend you are|Assume|Act like
Hello|Hi|Hi,|Hey|Hey there|Thanks|Thank you|Good evening|Does anyone|Tell me a joke|Complete the|Continue|Answer|Choose
Sort|Order|Rank|Extract|Use|Using|Based on|Read|Look at|Think of|Come up with|Brainstorm|Outline|Prepare|Teach me
def|class|import|SELECT|for|#|{name}|{name} has|{name} is|{name} wants to|There are|There is|It|It is|One|Two|At a
Today|Yesterday|Last|This|These|Some|Many|People|Children|Students|Scientists|Life|Love|Music|Food|Cooking|Travel
{object}|{place}|{topic}|{topic} and|About {topic}|Regarding {matter}|On {theme}|For {event}"""
OPENINGS = [part for line in OPENINGS.split("\n") for part in line.split("|")]

CODE_TASKS = ["Explain this function.", "What does this code do?", "Add comments to this code.",
              "Rewrite this code so that it is easier to read.", "Find bugs in this function:",
              "Add type hints:", "Write a docstring for this function.", "Translate this to {language}.",
              "Write a test for this function.", "Refactor this code:", "Simplify:",
              "Return the same code with better names.", "Summarize what this function returns.",
              "Make this function faster.", "Here is some code. How would you improve it?"]
TEXT_TASKS = ["Summarize this text.", "Explain this in simple words:", "What are the main points?",
              "Rewrite this text in a {style} style.", "Give me a one sentence summary.",
              "Make a list of the important points:", "Turn this into questions and answers.",
              "Correct any mistakes and return the text.", "What is this about?",
              "Write a short introduction based on this:", "Repeat this text with short sentences.",
              "Extract the keywords:", "Explain to {audience}:", "Quote the most important sentence."]
